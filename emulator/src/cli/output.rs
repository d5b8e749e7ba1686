//! What is printed: counters as JSON, errors in one line, what a kernel left unwritten.

use std::fmt;

use ptx_emulator::{Counters, Device, InstructionClass, MemoryError, ParseError};
use serde_json::{Map, Value, json};

/// The counters of one run as one line of JSON.
pub(super) fn counters(entry: &str, seed: u64, counters: &Counters) -> String {
    let mut classes = Map::new();
    for class in InstructionClass::ALL {
        let count = counters.class(class);
        if count.warps > 0 {
            classes.insert(
                class.name().into(),
                json!({ "warp": count.warps, "thread": count.threads }),
            );
        }
    }
    let traffic = |t: &ptx_emulator::Traffic| json!({ "bytes": t.bytes, "sectors": t.sectors, "ideal_sectors": t.ideal_sectors });
    let value: Value = json!({
        "entry": entry,
        "seed": seed,
        "instructions": { "warp": counters.instructions.warps, "thread": counters.instructions.threads },
        "classes": classes,
        "global_loads": traffic(&counters.global_loads),
        "global_copies": traffic(&counters.global_copies),
        "global_stores": traffic(&counters.global_stores),
        "shared": {
            "wavefronts": counters.shared.wavefronts,
            "ideal_wavefronts": counters.shared.ideal_wavefronts,
        },
        "barriers": counters.barriers,
        "matrix_instructions": counters.matrix_instructions,
        "divergent_branches": counters.divergent_branches,
        "peak_bytes_in_flight": counters.peak_bytes_in_flight,
    });
    value.to_string()
}

/// A parse error in one line.
pub(super) fn parse_error(error: &ParseError) -> String {
    format!("{}:{}: {}: `{}`", error.file, error.line, error.message.replace('\n', " "), error.text)
}

/// Which bytes of a buffer have been written.
pub(super) struct Written {
    bytes: usize,
    missing: usize,
    first: usize,
}

impl Written {
    pub(super) fn of(device: &Device, address: u64, bytes: usize) -> Result<Written, MemoryError> {
        let mut written = Written { bytes, missing: 0, first: 0 };
        const CHUNK: usize = 256;
        for at in (0..bytes).step_by(CHUNK) {
            let size = CHUNK.min(bytes - at);
            if device.is_initialised(address + at as u64, size)? {
                continue;
            }
            for byte in at..at + size {
                if !device.is_initialised(address + byte as u64, 1)? {
                    if written.missing == 0 {
                        written.first = byte;
                    }
                    written.missing += 1;
                }
            }
        }
        Ok(written)
    }

    /// What is missing, if anything is.
    pub(super) fn gap(&self) -> Option<impl fmt::Display> {
        (self.missing > 0).then(|| {
            format!(
                "{} of {} bytes were never written, the first at offset {}; they are saved as zeros",
                self.missing, self.bytes, self.first
            )
        })
    }
}
