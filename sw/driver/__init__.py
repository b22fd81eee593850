"""The driver of a device: `device.Device`, where its state stands, its image in a flash, and whether it is in order."""
