//! The emulator's matrix products against a GPU's: `PAGEDPTX_DRIVER=cudarc cargo test --features cudarc --test gpu`.
//!
//! Without a GPU the same program runs on the emulator alone, on sums that every machine gets exactly right.

use half::{bf16, f16};
use pagedptx::{Device, Driver, LaunchShape};
use ptx_emulator::{Launch, MmaMode, Module};

/// A warp for each problem: the fragments of A, B and C in, D out, as the lanes hold them.
const MMA: &str = "\
.version 7.4
.target sm_80
.address_size 64
.visible .entry mma_f16(.param .align 8 .b8 params[16]) TYPE_f16
.visible .entry mma_bf16(.param .align 8 .b8 params[16]) TYPE_bf16
";

/// The body of an entry, for `f16` or `bf16`.
const BODY: &str = "\
{
    .reg .b64 %in, %out;
    .reg .b32 %a<4>, %b<2>, %c<4>, %d<4>, %row, %lane, %problem;
    .reg .f32 %cf<4>, %df<4>;
    ld.param.u64 %in, [params+0];
    ld.param.u64 %out, [params+8];
    mov.u32 %lane, %tid.x;
    mov.u32 %problem, %ctaid.x;
    mad.lo.u32 %row, %problem, 32, %lane;
    mad.wide.u32 %in, %row, 48, %in;
    mad.wide.u32 %out, %row, 16, %out;
    ld.global.v4.u32 {%a0, %a1, %a2, %a3}, [%in];
    ld.global.v4.u32 {%c0, %c1, %c2, %c3}, [%in+16];
    ld.global.v2.u32 {%b0, %b1}, [%in+32];
    mov.b32 %cf0, %c0;
    mov.b32 %cf1, %c1;
    mov.b32 %cf2, %c2;
    mov.b32 %cf3, %c3;
    mma.sync.aligned.m16n8k16.row.col.f32.TYPE.TYPE.f32 {%df0, %df1, %df2, %df3}, \
{%a0, %a1, %a2, %a3}, {%b0, %b1}, {%cf0, %cf1, %cf2, %cf3};
    st.global.v4.f32 [%out], {%df0, %df1, %df2, %df3};
    ret;
}";

/// The module's text.
fn module() -> &'static str {
    let body = |dtype: &str| BODY.replace("TYPE", dtype);
    let text = MMA.replace("TYPE_f16", &body("f16")).replace("TYPE_bf16", &body("bf16"));
    Box::leak(text.into_boxed_str())
}

/// A lane's part of a problem: four registers of A, four of C, two of B, two of padding.
type Lane = [u32; 12];

/// D of every problem on the emulator, exact for an architecture.
fn emulate(entry: &str, problems: &[Lane], sm: u32) -> Vec<[u32; 4]> {
    let device = ptx_emulator::Device::new();
    let module = Module::parse("mma.ptx", module()).unwrap();
    let input = device.allocate(size_of_val(problems)).unwrap();
    device.write(input, bytemuck::cast_slice(problems)).unwrap();
    let mut results = vec![[0_u32; 4]; problems.len()];
    let output = device.allocate(size_of_val(&results[..])).unwrap();
    let params = [input, output];
    let launch = Launch {
        grid: [problems.len() as u32 / 32, 1, 1],
        block: [32, 1, 1],
        params: bytemuck::bytes_of(&params),
        sm: Some(sm),
        mma: MmaMode::BitAccurate,
        ..Launch::default()
    };
    device.launch(&module, entry, &launch).unwrap();
    device.read(output, bytemuck::cast_slice_mut(&mut results)).unwrap();
    results
}

/// D of every problem on a GPU.
fn run<D: Driver>(device: &Device<D>, entry: &'static str, problems: &[Lane]) -> Vec<[u32; 4]> {
    let driver = device.driver();
    let stream = driver.create_stream().unwrap();
    let kernel = driver.load(entry, module()).unwrap();
    let mut results = vec![[0_u32; 4]; problems.len()];
    let input = driver.allocate(&stream, size_of_val(problems)).unwrap();
    let output = driver.allocate(&stream, size_of_val(&results[..])).unwrap();
    let shape = LaunchShape {
        grid: [problems.len() as u32 / 32, 1, 1],
        block: [32, 1, 1],
        dynamic_shared_bytes: 0,
        overlaps_previous: false,
    };
    let params = [input.0, output.0];
    // SAFETY: lane l of CTA c reads and writes row 32 c + l of the two, which have a row for each lane of the grid.
    unsafe {
        driver.write(&stream, input, bytemuck::cast_slice(problems)).unwrap();
        driver.launch(&stream, &kernel, &shape, bytemuck::bytes_of(&params)).unwrap();
        driver.read(&stream, output, bytemuck::cast_slice_mut(&mut results)).unwrap();
        driver.free(&stream, input);
        driver.free(&stream, output);
    }
    results
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }
}

/// Two 16-bit values in a register.
fn pair(mut value: impl FnMut() -> u16) -> u32 {
    u32::from(value()) | u32::from(value()) << 16
}

/// Sums of small integers have one right result, whatever the order and the width of the adder; the emulator gives it.
#[test]
fn sums_of_small_integers_are_exact() {
    let mut random = Random(0x1234_5678_9ABC_DEF1);
    let mut integer = || (random.next() % 17) as f32 - 8.0;
    // Element (row, column) of A is `a[row][column]`, and so on.
    let a: [[f32; 16]; 16] = std::array::from_fn(|_| std::array::from_fn(|_| integer()));
    let b: [[f32; 8]; 16] = std::array::from_fn(|_| std::array::from_fn(|_| integer()));
    let c: [[f32; 8]; 16] = std::array::from_fn(|_| std::array::from_fn(|_| integer()));
    #[allow(clippy::type_complexity)] // two names and two functions
    let types: [(&str, fn(f32) -> u16); 2] = [
        ("mma_f16", |x| f16::from_f32(x).to_bits()),
        ("mma_bf16", |x| bf16::from_f32(x).to_bits()),
    ];
    for (entry, round) in types {
        let two = |x: f32, y: f32| u32::from(round(x)) | u32::from(round(y)) << 16;
        // PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type".
        let lane = |lane: usize| -> Lane {
            let (g, t) = (lane / 4, lane % 4);
            std::array::from_fn(|i| match i {
                0..4 => {
                    let (row, column) = (g + 8 * (i & 1), 2 * t + 8 * (i >> 1));
                    two(a[row][column], a[row][column + 1])
                }
                4..8 => c[g + 8 * ((i - 4) >> 1)][2 * t + ((i - 4) & 1)].to_bits(),
                8..10 => two(b[2 * t + 8 * (i - 8)][g], b[2 * t + 8 * (i - 8) + 1][g]),
                _ => 0,
            })
        };
        let problem: Vec<Lane> = (0..32).map(lane).collect();
        for sm in [80, 90] {
            for (lane, got) in emulate(entry, &problem, sm).iter().enumerate() {
                for (i, got) in got.iter().enumerate() {
                    let (row, column) = (lane / 4 + 8 * (i >> 1), lane % 4 * 2 + (i & 1));
                    let products = (0..16).map(|k| a[row][k] * b[k][column]);
                    let expected = products.sum::<f32>() + c[row][column];
                    assert_eq!(
                        f32::from_bits(*got),
                        expected,
                        "{entry}, row {row}, column {column}"
                    );
                }
            }
        }
    }
}

/// Problems that show how sums are aligned and rounded: values of close and of far exponents, cancelling terms,
/// subnormal ones, and zeros of both signs.
fn hard_problems(bf16: bool) -> Vec<Lane> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut problems = Vec::new();
    for problem in 0..1024_u32 {
        // How far exponents spread, in powers of two.
        let spread = [1, 3, 8, 20][problem as usize % 4];
        for _ in 0..32 {
            let mut value = |_| -> u16 {
                let bits = random.next();
                let (sign, mantissa) = ((bits & 1) as u16, (bits >> 1) as u16);
                let exponent = (bits >> 17) % spread;
                match (bits >> 27, bf16) {
                    (0, _) => sign << 15,
                    (1, false) => sign << 15 | mantissa & 0x3FF,
                    (1, true) => sign << 15 | mantissa & 0x7F,
                    (_, false) => sign << 15 | (15 + exponent as u16 / 2) << 10 | mantissa & 0x3FF,
                    (_, true) => sign << 15 | (120 + exponent as u16) << 7 | mantissa & 0x7F,
                }
            };
            let mut lane: Lane = [0; 12];
            for register in [0, 1, 2, 3, 8, 9] {
                lane[register] = pair(|| value(()));
            }
            for c in &mut lane[4..8] {
                let bits = random.next();
                let exponent = 127 + random.next() % (2 * spread) - spread / 2;
                *c = (bits & 0x8000_0000) | exponent << 23 | bits & 0x007F_FFFF;
            }
            problems.push(lane);
        }
    }
    problems
}

/// The problems below tell one architecture's adder from another's, else agreeing on them would say little.
#[test]
fn hard_problems_tell_adders_apart() {
    for (entry, bf16) in [("mma_f16", false), ("mma_bf16", true)] {
        let problems = hard_problems(bf16);
        let (ampere, hopper) = (emulate(entry, &problems, 80), emulate(entry, &problems, 90));
        let differing = ampere.iter().zip(&hopper).filter(|(a, h)| a != h).count();
        assert!(differing > problems.len() / 10, "{entry}: {differing} of {}", problems.len());
    }
}

/// The GPU's matrix products have the bits that the emulator's exact mode for its architecture has.
#[test]
fn matrix_products_have_the_gpus_bits() {
    #[cfg_attr(not(any(feature = "cust", feature = "cudarc")), expect(dead_code))]
    fn compare<D: Driver>(device: &Device<D>) {
        let (major, minor) = device.properties().compute_capability;
        for (entry, bf16) in [("mma_f16", false), ("mma_bf16", true)] {
            let problems = hard_problems(bf16);
            let exact = emulate(entry, &problems, 10 * major + minor);
            let got = run(device, entry, &problems);
            let wrong: Vec<_> =
                (0..exact.len()).filter(|lane| exact[*lane] != got[*lane]).collect();
            if let Some(&lane) = wrong.first() {
                panic!(
                    "{entry} on {}: {} of {} lanes differ; lane {} of problem {}: {:x?} on the GPU, {:x?} emulated, from {:x?}",
                    device.properties().name,
                    wrong.len(),
                    exact.len(),
                    lane % 32,
                    lane / 32,
                    got[lane],
                    exact[lane],
                    &problems[lane / 32 * 32..][..32],
                );
            }
        }
    }
    match std::env::var("PAGEDPTX_DRIVER").as_deref() {
        #[cfg(feature = "cust")]
        Ok("cust") => {
            compare(&Device::new(pagedptx::driver::CustDriver::new(0).unwrap()).unwrap());
        }
        #[cfg(feature = "cudarc")]
        Ok("cudarc") => {
            compare(&Device::new(pagedptx::driver::CudarcDriver::new(0).unwrap()).unwrap());
        }
        _ => eprintln!("skipped: PAGEDPTX_DRIVER names no GPU driver of this build"),
    }
}
