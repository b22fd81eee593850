// Main program of a Verilated bench: cocotb runs at time steps through VPI, as with any simulator; in between, whenever the
// bench asks for it (`go`), the clock is driven from here, without a callback per cycle. This is what makes whole samples fast.
#include <cstdio>
#include <cstring>
#include <memory>

#include "Vbench.h"
#include "verilated.h"
#include "verilated_vpi.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

extern "C" void vlog_startup_routines_bootstrap();  // in cocotb's VPI library

namespace {

void settle(Vbench& bench) {
    do {
        bench.eval_step();
        VerilatedVpi::clearEvalNeeded();
        VerilatedVpi::doInertialPuts();
        while (VerilatedVpi::callValueCbs()) {}
    } while (VerilatedVpi::evalNeeded());
}

}  // namespace

int main(int argc, char** argv) {
    VerilatedContext* const context = Verilated::threadContextp();
    context->commandArgs(argc, argv);
    context->fatalOnVpiError(false);  // cocotb asks for objects that may be absent
#if VM_TRACE
    context->traceEverOn(true);
#endif
    auto bench = std::make_unique<Vbench>(context, "");
#if VM_TRACE
    VerilatedVcdC trace;
    bench->trace(&trace, 99);
    trace.open(argv[1]);
    const auto dump = [&] { trace.dump(context->time()); };
#else
    const auto dump = [] {};
#endif
    const auto half_cycle = [&](bool clk) {
        bench->clk = clk;
        bench->eval();
        dump();
        context->timeInc(1);
    };

    vlog_startup_routines_bootstrap();
    VerilatedVpi::callCbs(cbStartOfSimulation);
    while (!context->gotFinish()) {
        do {
            settle(*bench);
            VerilatedVpi::callCbs(cbReadWriteSynch);
            VerilatedVpi::doInertialPuts();
        } while (VerilatedVpi::evalNeeded());
        bench->eval_end_step();
        VerilatedVpi::callCbs(cbReadOnlySynch);
        while (bench->go) {
            half_cycle(true);
            half_cycle(false);
        }
        const QData next = VerilatedVpi::cbNextDeadline();
        if (next == ~QData{0}) break;
        if (next > context->time()) context->time(next);
        VerilatedVpi::callCbs(cbNextSimTime);
        VerilatedVpi::callTimedCbs();
    }
    bench->final();
    VerilatedVpi::callCbs(cbEndOfSimulation);
#if VM_TRACE
    trace.close();
#endif
    return context->errorCount() ? 1 : 0;
}
