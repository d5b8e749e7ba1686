//! Any text: it is refused, or every entry of it runs, to an end, a finding or a limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagedptx_fuzz::{CAPACITY, limits};
use ptx_emulator::{Device, Launch, Module};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let Ok(module) = Module::parse("fuzz.ptx", &text) else { return };
    let entries: Vec<&str> = module.entries().take(4).collect();
    for entry in entries {
        let device = Device::with_capacity(CAPACITY);
        let Ok(buffer) = device.allocate(1024) else { return };
        device.write(buffer, &[0; 512]).expect("inside");
        // Every parameter that can be a pointer is one.
        let bytes = module.params(entry).and_then(|p| p.last().map(|&(_, offset, bytes)| offset + bytes)).unwrap_or(0);
        let params: Vec<u8> = buffer.to_le_bytes().into_iter().cycle().take(bytes.min(1 << 16)).collect();
        for block in [[1, 1, 1], [33, 2, 1]] {
            let _ = device.launch(&module, entry, &Launch { grid: [2, 1, 1], block, params: &params, ..limits() });
        }
    }
});
