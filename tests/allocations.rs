//! A step of an engine, once it has been made as large before, allocates nothing: not on the device, not on the host.

mod nothing;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use half::bf16;
use pagedptx::{
    BlockTables, Buffer, DecodeArgs, DecodePlan, Device, KvPool, PoolShape, Result, Sequence,
    SlotMapping, append, decode,
};

use crate::nothing::Nothing;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which counts what this thread asks for.
struct Counting;

// SAFETY: the system's allocator is asked for everything.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(address, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Setting slots and tables, appending and attending allocate nothing in a step that has as many sequences as one before.
#[test]
fn a_step_allocates_nothing() {
    let device = Device::new(Nothing::new(227 << 10)).unwrap();
    let stream = device.stream().unwrap();
    let shape = PoolShape { num_blocks: 64, block_size: 16, num_kv_heads: 2, head_dim: 128 };
    let mut pool = KvPool::<_, bf16>::new(&stream, shape).unwrap();
    let mut plan = DecodePlan::<_, bf16, bf16>::new(&stream, shape, 8, 2, 4).unwrap();
    let mut tables = BlockTables::new(&stream, shape, 2, 4).unwrap();
    let mut slots = SlotMapping::new(&stream, shape, 2).unwrap();
    let [mut k, mut v] = [(); 2].map(|()| Buffer::uninit(&stream, 2 * 2 * 128).unwrap());
    let mut q = Buffer::uninit(&stream, 2 * 8 * 128).unwrap();
    let mut out = Buffer::uninit(&stream, 2 * 8 * 128).unwrap();
    let host = [bf16::ONE; 2 * 8 * 128];
    let mut step = |len: u32| -> Result<()> {
        slots.set(&[16 * 9 + i64::from(len), 16 * 3 + i64::from(len)])?;
        k.write(&host[..2 * 2 * 128])?;
        v.write(&host[..2 * 2 * 128])?;
        append(&mut pool, &slots, &k, &v)?;
        let first = Sequence { blocks: &[7, 9], len: 17 + len };
        tables.set([first, Sequence { blocks: &[3], len: 1 + len }])?;
        q.write(&host)?;
        let args = DecodeArgs { q: &q, out: &mut out, lse: None, sm_scale: 0.1 };
        decode(&mut plan, &pool, &tables, args)
    };
    step(0).unwrap();
    let counts = || {
        let driver = device.driver();
        (ALLOCATIONS.get(), driver.device_allocations.get(), driver.launches.get())
    };
    let before = counts();
    assert!(before.0 > 0 && before.1 > 0, "what was made so far is counted: {before:?}");
    for len in 1..16 {
        step(len).unwrap();
    }
    assert_eq!(counts(), (before.0, before.1, before.2 + 2 * 15));
}
