//! Valid kernels with any parameters, shapes and memory: a result, a finding or an error, and the same one again.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pagedptx_fuzz::program::{PARAM_BYTES, Program};
use pagedptx_fuzz::{CAPACITY, STEP_LIMIT, launch_twice, limits};
use ptx_emulator::{Checks, Device, Launch, MmaMode, Module};

#[derive(Debug, Arbitrary)]
struct Input {
    program: Program,
    pointers: [Pointer; 2],
    number: u32,
    params: ParamFault,
    grid: [Extent; 3],
    block: [Extent; 3],
    shared: Extent,
    seed: u64,
    checks: u8,
    sm: Sm,
    accurate: bool,
    memory: Vec<Touch>,
}

/// Where a pointer parameter points.
#[derive(Debug, Arbitrary)]
enum Pointer {
    Buffer(u16),
    Null,
    Any(u64),
}

#[derive(Debug, Arbitrary)]
enum ParamFault {
    None,
    AsMany(u8),
}

/// A size: usually small.
#[derive(Debug, Arbitrary)]
enum Extent {
    One,
    Small(u8),
    Any(u32),
}

#[derive(Debug, Arbitrary)]
enum Sm {
    Module,
    Known(bool),
    Any(u32),
}

/// What the host does with memory before the launch.
#[derive(Debug, Arbitrary)]
enum Touch {
    Forbid(u16, u8),
    Protect(u16, u8),
    Permit(u16, u8),
    Forget(u16, u8),
    Free,
}

impl Extent {
    fn get(&self) -> u32 {
        match *self {
            Extent::One => 1,
            Extent::Small(n) => u32::from(n % 48),
            Extent::Any(n) => n,
        }
    }
}

/// A device with one buffer in the state that the input asks for.
fn device(memory: &[Touch]) -> (Device, u64) {
    let device = Device::with_capacity(CAPACITY);
    let buffer = device.allocate(4096).expect("capacity");
    device.write(buffer, &[1; 2048]).expect("inside");
    for touch in memory.iter().take(16) {
        // A range past the end, or memory freed before, is refused; nothing else may happen.
        let _ = match *touch {
            Touch::Forbid(at, n) => device.forbid(buffer + u64::from(at), n.into()),
            Touch::Protect(at, n) => device.protect(buffer + u64::from(at), n.into()),
            Touch::Permit(at, n) => device.permit(buffer + u64::from(at), n.into()),
            Touch::Forget(at, n) => device.mark_uninitialised(buffer + u64::from(at), n.into()),
            Touch::Free => device.free(buffer),
        };
    }
    (device, buffer)
}

fuzz_target!(|input: Input| {
    let module = Module::parse("fuzz.ptx", &input.program.0).unwrap_or_else(|e| panic!("{e}\n{}", input.program.0));
    let ((first, buffer), (second, same)) = (device(&input.memory), device(&input.memory));
    assert_eq!(buffer, same);
    let mut params = Vec::new();
    for pointer in &input.pointers {
        let address = match *pointer {
            Pointer::Buffer(offset) => buffer + u64::from(offset % 4096),
            Pointer::Null => 0,
            Pointer::Any(address) => address,
        };
        params.extend(address.to_le_bytes());
    }
    params.extend(input.number.to_le_bytes());
    assert_eq!(params.len(), PARAM_BYTES);
    if let ParamFault::AsMany(bytes) = input.params {
        params.resize(bytes.into(), 0);
    }
    let names = ["registers", "memory", "shared-races", "global-races", "lockstep", "strict-order"];
    let chosen: Vec<&str> = (0..6).filter(|i| input.checks >> i & 1 == 1).map(|i| names[i]).collect();
    let checks = if chosen.is_empty() { Checks::NONE } else { Checks::parse(&chosen.join(",")).expect("names") };
    let launch = Launch {
        grid: input.grid.each_ref().map(Extent::get),
        block: input.block.each_ref().map(Extent::get),
        dynamic_shared_bytes: input.shared.get(),
        params: &params,
        seed: input.seed,
        step_limit: STEP_LIMIT,
        checks: if input.checks >= 128 { Checks::ALL } else { checks },
        sm: match input.sm {
            Sm::Module => None,
            Sm::Known(newer) => Some(if newer { 90 } else { 80 }),
            Sm::Any(sm) => Some(sm),
        },
        mma: if input.accurate { MmaMode::BitAccurate } else { MmaMode::Fast },
        ..limits()
    };
    launch_twice([&first, &second], &module, "fuzz", &launch);
});
