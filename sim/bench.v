// The stage a design plays on: words from a memory into stream `i`, words of stream `o` into another memory, with random
// stalls on both, until a count is reached. Python fills and empties the memories in whole rows and touches nothing while
// the clock runs. Macros (sim/build.py): I_BITS, O_BITS payload widths; W word width in the memories; SLOTS words a row;
// ROWS rows; PORTS declares registers for the design's other inputs; DESIGN connects it.
module bench (
    input  wire clk,
    output wire go  // the main program gives clock cycles as long as this is 1
);
    // Written by Python before a run.
    reg                     run       /*verilator public_flat_rw*/;
    reg                     reset     /*verilator public_flat_rw*/;
    reg [31:0]              n_in      /*verilator public_flat_rw*/;  // words in `play`
    reg [31:0]              n_out     /*verilator public_flat_rw*/;  // words to collect in `take`
    reg                     last_in   /*verilator public_flat_rw*/;  // no further inputs follow in another run
    reg                     last_out  /*verilator public_flat_rw*/;
    reg [31:0]              limit     /*verilator public_flat_rw*/;  // clock cycles after which the run is given up
    reg [31:0]              linger    /*verilator public_flat_rw*/;  // cycles to go on, to catch a word too many
    reg [16:0]              stall_in  /*verilator public_flat_rw*/;  // chance of a stall, of 65536
    reg [16:0]              stall_out /*verilator public_flat_rw*/;
    reg [31:0]              random    /*verilator public_flat_rw*/;
    reg [`SLOTS*`W-1:0]     play [0:`ROWS-1] /*verilator public_flat_rw*/;
    `PORTS
    reg                     i_valid, o_ready, waiting;
    // Cleared by Python before a run, except that a word still offered from the last one counts as offered.
    reg [31:0]              offered   /*verilator public_flat_rw*/;
    reg [31:0]              sent      /*verilator public_flat_rw*/;
    reg [31:0]              got       /*verilator public_flat_rw*/;
    reg [31:0]              cycles    /*verilator public_flat_rw*/;
    reg [31:0]              quiet     /*verilator public_flat_rw*/;  // cycles since everything was sent and got
    reg                     extra     /*verilator public_flat_rw*/;  // a word too many came
    reg                     unsteady  /*verilator public_flat_rw*/;  // a waiting output changed or went away
    // Read by Python after a run.
    reg [`SLOTS*`W-1:0]     take [0:`ROWS-1] /*verilator public_flat_rw*/;
    wire [98:0]             status    /*verilator public_flat_rw*/;
    assign status = {i_valid, unsteady, extra, sent, got, cycles};

    reg [`I_BITS-1:0]       i_payload;
    reg [`O_BITS-1:0]       held;
    wire                    i_ready, o_valid;
    wire [`O_BITS-1:0]      o_payload;
    wire [31:0]             mixed = random ^ (random << 13);
    wire [31:0]             mixed2 = mixed ^ (mixed >> 17);

    wire all_in  = sent == n_in;
    wire all_out = got == n_out;
    wire over    = (all_in & all_out & quiet >= linger) | (all_in & ~last_in) | (all_out & ~last_out) | cycles >= limit;
    assign go    = run & ~over;

    always @(posedge clk) begin
        random <= mixed2 ^ (mixed2 << 5);
        cycles <= cycles + 1;
        if (all_in & all_out) quiet <= quiet + 1;
        if (~i_valid | i_ready) begin
            i_valid <= offered != n_in & {1'b0, random[15:0]} >= stall_in;
            if (offered != n_in & {1'b0, random[15:0]} >= stall_in) begin
                i_payload <= play[offered / `SLOTS][offered % `SLOTS * `W +: `I_BITS];
                offered <= offered + 1;
            end
        end
        if (i_valid & i_ready) sent <= sent + 1;
        o_ready <= {1'b0, random[31:16]} >= stall_out;
        if (o_valid & o_ready) begin
            if (all_out) extra <= 1;
            else begin
                take[got / `SLOTS][got % `SLOTS * `W +: `O_BITS] <= o_payload;
                got <= got + 1;
            end
        end
        waiting <= o_valid & ~o_ready;
        held <= o_payload;
        if (waiting & (~o_valid | o_payload != held)) unsteady <= 1;
        if (reset) {i_valid, o_ready, waiting} <= 0;
    end

    top dut (`DESIGN);
endmodule
