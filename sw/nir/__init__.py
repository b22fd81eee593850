"""Networks from other frameworks, as NIR graphs: onto the chip, and back."""
