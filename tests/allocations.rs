//! A step of an engine, once it has been made as large before, allocates nothing: not on the device, not on the host.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use half::bf16;
use pagedptx::{
    BlockTables, Buffer, DecodeArgs, DecodePlan, Device, DeviceAddress, DeviceProperties, Driver,
    KvPool, LaunchShape, PoolShape, Result, Sequence, SlotMapping, append, decode,
};

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

/// A device without memory: it counts calls and does nothing.
struct Nothing {
    properties: DeviceProperties,
    device_allocations: Cell<u64>,
    launches: Cell<u64>,
}

// SAFETY: no address that it gives is ever used: copies and launches do nothing. Nothing is read.
unsafe impl Driver for Nothing {
    type Stream = ();
    type Kernel = ();

    fn properties(&self) -> &DeviceProperties {
        &self.properties
    }

    fn create_stream(&self) -> Result<()> {
        Ok(())
    }

    fn allocate(&self, (): &(), _bytes: usize) -> Result<DeviceAddress> {
        self.device_allocations.set(self.device_allocations.get() + 1);
        Ok(DeviceAddress(self.device_allocations.get() << 32))
    }

    unsafe fn free(&self, (): &(), _address: DeviceAddress) {}

    unsafe fn write(&self, (): &(), _dst: DeviceAddress, _src: &[u8]) -> Result<()> {
        Ok(())
    }

    unsafe fn read(&self, (): &(), _src: DeviceAddress, _dst: &mut [u8]) -> Result<()> {
        Ok(())
    }

    unsafe fn fill(&self, (): &(), _dst: DeviceAddress, _value: u8, _bytes: usize) -> Result<()> {
        Ok(())
    }

    unsafe fn copy(
        &self,
        (): &(),
        _dst: DeviceAddress,
        _src: DeviceAddress,
        _bytes: usize,
    ) -> Result<()> {
        Ok(())
    }

    fn load(&self, _entry: &'static str, _ptx: &'static str) -> Result<()> {
        Ok(())
    }

    unsafe fn launch(&self, (): &(), (): &(), _shape: &LaunchShape, _params: &[u8]) -> Result<()> {
        self.launches.set(self.launches.get() + 1);
        Ok(())
    }

    fn synchronize(&self, (): &()) -> Result<()> {
        Ok(())
    }
}

/// Setting slots and tables, appending and attending allocate nothing in a step that has as many sequences as one before.
#[test]
fn a_step_allocates_nothing() {
    let device = Device::new(Nothing {
        properties: DeviceProperties {
            name: "nothing".into(),
            compute_capability: (9, 0),
            num_multiprocessors: 132,
            shared_bytes_per_cta: 227 << 10,
        },
        device_allocations: Cell::new(0),
        launches: Cell::new(0),
    })
    .unwrap();
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
