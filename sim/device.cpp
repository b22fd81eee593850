// A Verilated device (hw/top.py) as a shared library: bytes in, bytes out, time under the caller's control. No VPI.
// ___05F is how Verilator writes two underscores. SERIAL: the bytes go over pins rx and tx, BIT clock cycles a bit, without a pause; else over the streams i and o.
#include <cstdint>
#include <memory>
#include <vector>

#include "Vtop.h"
#include "verilated.h"

namespace {

constexpr int QUIET = 64;  // clock cycles without anything under way after which nothing more will come

// SPI flash, mode 0: release from deep power-down (0xAB), in which it is at power-up, and read (0x03). What it sends is wrong but for the
// second half of a bit's period, and always if nothing was asked for.
struct Flash {
    std::vector<uint8_t> data;        // from `base` on; all else is erased
    uint32_t base = 0, shift = 0, address = 0;
    uint64_t wake = 0, awake = ~0ull;  // clock cycles from the command to the next one, and from when on it listens
    int bits = 0;
    bool cs = false, clk = false, reading = false, waking = false, out = false;

    bool next() {  // the bit to send
        const uint32_t at = address - base + (bits - 32) / 8;
        return (at < data.size() ? data[at] : 0xFF) >> (7 - bits % 8) & 1;
    }

    uint8_t step(bool cs_now, bool clk_now, bool copi, uint64_t cycle) {
        const bool risen = clk_now && !clk, fallen = !clk_now && clk;
        if (!cs_now) {
            if (cs && waking) awake = cycle + wake;
            bits = 0, reading = waking = false;
        } else if (risen) {
            shift = shift << 1 | copi, ++bits;
            if (bits == 8) waking = (shift & 0xFF) == 0xAB, reading = (shift & 0xFF) == 0x03 && cycle >= awake;
            if (bits == 32) address = shift & 0xFFFFFF;
        } else if (fallen && bits >= 32) {
            out = next();
        }
        cs = cs_now, clk = clk_now;
        return reading && bits >= 32 && !fallen ? out : !out;
    }
};

struct Device {
    VerilatedContext context;
    std::unique_ptr<Vtop> top{new Vtop{&context, ""}};
    uint64_t cycles = 0, line_cycles = 0;
    int quiet = 0;
#ifdef SERIAL
    int sending = 0, bit = 0, frame = 0;              // of the byte on rx: bits left, cycles left of this one, bits
    int receiving = 0, wait = 0, gathered = 0;        // of the byte on tx
#endif
    Flash flash;
    void clock() {
        top->clk = 1;
        top->eval();
        top->clk = 0;
        top->flash___05Fcipo = flash.step(top->flash___05Fcs, top->flash___05Fclk, top->flash___05Fcopi, cycles);
        top->eval();
        ++cycles;
    }
};

}  // namespace

extern "C" {

Device* device_new() {
    auto* d = new Device;
    d->top->clk = 0;
#ifdef SERIAL
    d->top->rx = 1;
#else
    d->top->i___05Fvalid = 0, d->top->o___05Fready = 0, d->top->damaged = 0;
#endif
    d->top->rst = 0;
    d->top->eval();
    return d;
}

void device_delete(Device* d) { delete d; }

void device_reset(Device* d) {  // registers, not memories
    d->top->rst = 1;
    d->clock();
    d->top->rst = 0;
    d->top->eval();
    d->quiet = 0;
}

// The flash has `n` bytes from `base` on, and takes `wake` clock cycles to wake up.
void device_flash(Device* d, const uint8_t* data, int n, uint32_t base, uint64_t wake) {
    d->flash.data.assign(data, data + n);
    d->flash.base = base;
    d->flash.wake = wake;
}

uint64_t device_cycles(Device* d) { return d->cycles; }
uint64_t device_line_cycles(Device* d) { return d->line_cycles; }  // in which the line to the device was in use
int device_lights(Device* d) { return d->top->lights; }

// Offers `n` bytes and runs for at most `limit` clock cycles, or until the device is quiet and the bytes are sent, or `capacity`
// bytes have come, or (`frame`) one of them is 0. Stores how many came in `got`; returns how many of the `n` were taken.
int device_run(Device* d, const uint8_t* in, int n, uint8_t* out, int capacity, int* got, int frame, uint64_t limit) {
    Vtop& top = *d->top;
    int sent = 0;
    *got = 0;
#ifdef SERIAL
    for (; limit && *got < capacity; --limit) {
        if (!d->sending && sent < n) d->sending = 10, d->bit = BIT, d->frame = in[sent++] << 1 | 0x200;
        top.rx = d->sending ? d->frame & 1 : 1;
        if (d->sending) {
            ++d->line_cycles;
            if (--d->bit == 0) d->bit = BIT, d->frame >>= 1, --d->sending;
        }
        d->clock();
        if (!d->receiving) {
            if (!top.tx) d->receiving = 10, d->wait = BIT / 2, d->gathered = 0;
        } else if (--d->wait == 0) {
            d->gathered |= top.tx << (10 - d->receiving);
            d->wait = BIT;
            if (--d->receiving == 0) {
                out[*got] = d->gathered >> 1;
                if (!out[(*got)++] && frame) break;
            }
        }
        d->quiet = top.quiet && !d->sending && !d->receiving ? d->quiet + 1 : 0;
        if (sent == n && d->quiet >= QUIET) break;
    }
#else
    // i.ready and o.valid come from registers: they do not depend on what is set here.
    for (; limit && *got < capacity; --limit) {
        top.i___05Fvalid = sent < n;
        if (sent < n) top.i___05Fpayload = in[sent];
        top.o___05Fready = 1;
        const bool taken = top.i___05Fvalid && top.i___05Fready, came = top.o___05Fvalid;
        const uint8_t byte = top.o___05Fpayload;
        d->clock();
        d->line_cycles += taken;
        sent += taken;
        if (came) out[(*got)++] = byte;
        if (came && !byte && frame) break;
        d->quiet = top.quiet && !taken && !came ? d->quiet + 1 : 0;
        if (sent == n && d->quiet >= QUIET) break;
    }
    top.i___05Fvalid = 0, top.o___05Fready = 0;
    top.eval();
#endif
    return sent;
}

}  // extern "C"
