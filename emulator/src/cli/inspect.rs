//! `inspect`: what a PTX file holds and what of it cannot run.

use std::fmt::Write;
use std::path::Path;

use ptx_emulator::EntryInfo;

use super::{Outcome, Unusable, output, run, say};

/// Lists entries, parameters, registers, shared memory and unsupported instructions.
pub(super) fn inspect(path: &Path) -> Result<Outcome, Unusable> {
    let text = run::read_text(path)?;
    let name = path.display().to_string();
    let told =
        ptx_emulator::inspect(&name, &text).map_err(|e| Unusable::new(output::parse_error(&e)))?;
    let mut list = format!("{name}: target sm_{}, {} entries\n", told.sm, told.entries.len());
    told.entries.iter().for_each(|entry| describe(entry, &mut list));
    if told.unsupported.is_empty() {
        list.push_str("unsupported: nothing");
    } else {
        let _ = write!(list, "unsupported: {}", told.unsupported.len());
        for fault in &told.unsupported {
            let _ = write!(
                list,
                "\n    {}:{}: {}: {}",
                fault.file, fault.line, fault.text, fault.message
            );
        }
    }
    say(&list)?;
    Ok(Outcome::Clean)
}

fn describe(entry: &EntryInfo, list: &mut String) {
    let bytes = entry.params.last().map_or(0, |p| p.offset + p.bytes);
    let _ = writeln!(
        list,
        "entry {} (line {}, {} instructions)",
        entry.name, entry.line, entry.instructions
    );
    let _ = writeln!(list, "    parameters: {bytes} bytes");
    for param in &entry.params {
        let _ = writeln!(
            list,
            "        at {}: {} bytes, align {}, {}",
            param.offset, param.bytes, param.align, param.name
        );
    }
    let registers: Vec<_> =
        entry.registers.iter().map(|(ty, count)| format!("{count} .{}", ty.name())).collect();
    let registers = if registers.is_empty() { "none".to_owned() } else { registers.join(", ") };
    let _ = writeln!(list, "    registers: {registers}");
    let dynamic = if entry.dynamic_shared { " and dynamic" } else { "" };
    let _ = writeln!(
        list,
        "    shared memory: {} bytes{dynamic}; local memory: {} bytes",
        entry.shared_bytes, entry.local_bytes
    );
    if let Some([x, y, z]) = entry.required_block {
        let _ = writeln!(list, "    block: {x} x {y} x {z}");
    }
    if let Some(shape) = entry.max_block {
        let _ = writeln!(
            list,
            "    block: at most {} threads",
            shape.into_iter().map(u128::from).product::<u128>()
        );
    }
}
