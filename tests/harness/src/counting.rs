//! What the emulator counted, by the parts of a kernel's text.

use ptx_emulator::{Count, Counters};

/// Warp instructions of each numbered section of the text (`// ---- 3. Find the next unit`), in the order of the text; what
/// stands before the first section or in none counts to the one before.
pub fn sections(ptx: &str, counters: &Counters) -> Vec<(String, u64)> {
    let mut sections: Vec<(u32, String)> = Vec::new();
    for (line, text) in numbered(ptx) {
        if let Some(title) = text.trim_start().strip_prefix("// ---- ") {
            sections.push((line, title.to_owned()));
        }
    }
    let mut counts = vec![0; sections.len()];
    for (line, count) in &counters.lines {
        let index = sections.partition_point(|(first, _)| first <= line).saturating_sub(1);
        if let Some(total) = counts.get_mut(index) {
            *total += count.warps;
        }
    }
    sections.into_iter().map(|(_, title)| title).zip(counts).collect()
}

/// Warp instructions of the main loop per tile, or none for a kernel without one.
///
/// The loop goes from `$next_tile` to the branch back to it and is left in the middle after the last tile; behind it lie what it
/// does now and then, up to the branch back to `$weigh`. What stands before the exit, and the rescales, run once for each tile that a
/// warp takes, the rest once for each tile but a warp's first: both are averages over the launch, added up. Where several
/// warps take every tile, as in the wide kernels, all of them count. A loop without an exit in the middle runs once for each tile.
pub fn loop_instructions(ptx: &str, counters: &Counters, tiles: u64) -> Option<f64> {
    let line_of = |found: &dyn Fn(&str) -> bool| {
        numbered(ptx).find(|(_, text)| found(text)).map(|(line, _)| line)
    };
    let first = line_of(&|text| text.starts_with("$next_tile:"))?;
    let exit = line_of(&|text| text.contains("bra.uni $tiles_done;") && text.contains("%p_last"));
    let back = line_of(&|text| text.contains("bra.uni $next_tile;"))?;
    let rescale = line_of(&|text| text.starts_with("$rescale:"))?;
    let last = line_of(&|text| text.contains("bra.uni $weigh;"))?;
    let sum = |lines: std::ops::RangeInclusive<u32>| -> u64 {
        let inside = counters.lines.iter().filter(|(line, _)| lines.contains(line));
        inside.map(|(_, count)| count.warps).sum()
    };
    let Some(exit) = exit else { return Some(sum(first..=last) as f64 / tiles as f64) };
    let inside = |(line, _): &&(u32, Count)| (first..exit).contains(line);
    let taken = counters.lines.iter().find(inside)?.1.warps;
    let turns = sum(back..=back);
    let once_a_tile = sum(first..=exit) + sum(rescale..=last);
    let once_a_turn = sum(exit + 1..=rescale - 1);
    if turns == 0 {
        return None;
    }
    let a_tile = once_a_tile as f64 / taken as f64 + once_a_turn as f64 / turns as f64;
    Some(a_tile * taken as f64 / tiles as f64)
}

/// Lines of a text, from 1.
fn numbered(text: &str) -> impl Iterator<Item = (u32, &str)> {
    (1..).zip(text.lines())
}
