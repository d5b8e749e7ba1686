//! The report as a table for people.

use crate::Row;

/// Column heads and what they mean; `row` tells which targets and devices there are.
pub fn print_header(row: &Row) {
    println!(
        "instr: PTX warp instructions per 16-token tile and KV head, whole launch and main loop; sectors: of loads over ideal; \
         conf: bank conflicts;"
    );
    println!(
        "KB fly: KB of KV in flight an SM at least; reg/spill/sh/warps: registers, bytes spilled, KB of shared memory, warps an \
         SM; us at peak: roofline; * a slice was emulated (below the row)"
    );
    print!("{:<40} {:<24}", "case", "kernel");
    print!(" {:>6} {:>6} {:>7} {:>4}", "instr", "loop", "sectors", "conf");
    for target in row.kv_bytes_in_flight_per_sm.keys() {
        print!(" {:>13}", format!("{target} KB fly"));
    }
    for target in row.ptxas.keys() {
        print!(" {:>22}", format!("{target} reg/spill/sh/warps"));
    }
    print!(" {:>8}", "MB");
    for device in row.predicted_us.keys() {
        print!(" {:>7}", device);
    }
    if row.measured.is_some() {
        print!(
            " {:>9} {:>6} {:>9} {:>7} {:>9} {:>7}   ({})",
            "median us", "GB/s", "% of read", "host us", "graph us", "load ms", row.device
        );
    }
    println!();
}

/// One row.
pub fn print_row(row: &Row) {
    let mark = if row.emulated.is_some() { "*" } else { "" };
    let case =
        if row.case.len() > 39 { format!("{}…", &row.case[..38]) } else { row.case.clone() };
    print!("{:<40} {:<24}", format!("{case}{mark}"), row.kernel);
    let in_loop = row.loop_instructions_per_tile.map_or("-".to_owned(), |n| format!("{n:.1}"));
    print!(
        " {:>6.1} {:>6} {:>7.4} {:>4}",
        row.warp_instructions_per_tile, in_loop, row.load_sectors_over_ideal, row.shared_conflicts
    );
    for bytes in row.kv_bytes_in_flight_per_sm.values() {
        print!(" {:>13}", bytes >> 10);
    }
    for figures in row.ptxas.values() {
        let crate::ptxas::Figures { registers, spill_bytes, shared_bytes, warps_per_sm } = figures;
        let text = format!(
            "{registers}/{spill_bytes}/{:.1}/{warps_per_sm}",
            f64::from(*shared_bytes) / 1024.0
        );
        print!(" {text:>22}");
    }
    print!(" {:>8.1}", row.ideal_bytes as f64 / 1e6);
    for microseconds in row.predicted_us.values() {
        print!(" {microseconds:>7.1}");
    }
    if let Some(m) = &row.measured {
        print!(
            " {:>9.2} {:>6.0} {:>9.1} {:>7.2} {:>9.2} {:>7.1}",
            m.median_us, m.gb_per_s, m.percent_of_read_ceiling, m.host_us, m.in_graph_us, m.load_ms
        );
    }
    println!();
    if let Some(slice) = &row.emulated {
        println!("    * {slice}");
    }
    for (title, count) in row.sections.iter().filter(|(_, count)| *count > 0.0) {
        println!("    {count:>8.2}  {title}");
    }
}
