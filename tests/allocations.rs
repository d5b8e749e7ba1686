//! A step of an engine, once it has been made as large before, allocates nothing: not on the device, not on the host. What the host has
//! no memory for is an error value.

mod nothing;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use half::bf16;
use pagedptx::{
    BlockAllocator, BlockTables, Buffer, DecodeArgs, DecodePlan, Device, Error, KvPool, PoolShape,
    Result, Sequence, SlotMapping, append, decode,
};

use crate::nothing::Nothing;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// How many more this thread gets.
    static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// The system's allocator, which counts what this thread asks for and refuses it when none are left.
struct Counting;

// SAFETY: the system's allocator is asked for everything.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        let Some(left) = LEFT.get().checked_sub(1) else { return core::ptr::null_mut() };
        LEFT.set(left);
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

/// Errors of a call that is made again and again, with one more allocation each time, until it succeeds.
fn refusals<T>(mut call: impl FnMut() -> Result<T>) -> (Vec<Error>, T) {
    let mut errors = Vec::new();
    for allocations in 0.. {
        LEFT.set(allocations);
        let result = call();
        LEFT.set(u64::MAX);
        match result {
            Ok(value) => return (errors, value),
            Err(error) => errors.push(error),
        }
    }
    unreachable!("a call makes fewer than 2^64 allocations")
}

/// What is made as large as the caller asks for is an error where the host has no memory for it.
#[test]
fn what_the_host_has_no_memory_for_is_an_error() {
    let device = Device::new(Nothing::new(227 << 10)).unwrap();
    let stream = device.stream().unwrap();
    let shape = PoolShape { num_blocks: 64, block_size: 16, num_kv_heads: 2, head_dim: 128 };
    let host_memory = |bytes| Error::HostMemory { bytes };

    let mut slots = SlotMapping::new(&stream, shape, 3).unwrap();
    let (errors, ()) = refusals(|| slots.set(&[7, 8, 9]));
    assert_eq!(errors, [host_memory(24), host_memory(24)]);
    let mut tables = BlockTables::new(&stream, shape, 2, 4).unwrap();
    let (errors, ()) = refusals(|| tables.set([Sequence { blocks: &[3], len: 5 }; 2]));
    assert_eq!(errors, [host_memory(16), host_memory(4)]);
    let order: Vec<u32> = (0..99).collect();
    let mut orders = vec![order; 4];
    let (errors, _) = refusals(|| BlockAllocator::with_order(orders.pop().expect("4 suffice")));
    assert_eq!(errors, [host_memory(99), host_memory(99 * 4)]);

    let buffer = Buffer::<_, u32>::uninit(&stream, 99).unwrap();
    let (errors, elems) = refusals(|| buffer.to_vec());
    assert_eq!((errors, elems.len()), (vec![host_memory(99 * 4)], 99));
    let all = Buffer::<_, u8>::uninit(&stream, usize::MAX).unwrap();
    assert_eq!(all.to_vec(), Err(host_memory(u64::MAX)));
}
