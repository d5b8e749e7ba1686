//! `run`: a launch from its description, under one seed or several.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use ptx_emulator::{Device, Launch, LaunchError, Module};

use super::output::{self, Written};
use super::params::{self, Declared, Placed};
use super::spec::{Contents, LaunchSpec};
use super::{Outcome, Unusable, complain, say};

/// Bytes that files and zeros may fill together; a launch on the command line is not meant to fill the host.
const MAX_FILLED_BYTES: u64 = 8 << 30;
/// A PTX file or a description larger than this is a mistake.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// Runs the launch that `path` describes under `seeds` seeds; stops at the first that has findings.
pub(super) fn run(path: &Path, seeds: u64) -> Result<Outcome, Unusable> {
    let shown = path.display();
    let spec =
        LaunchSpec::parse(&read_text(path)?).map_err(|e| Unusable::new(format!("{shown}: {e}")))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let ptx = folder.join(&spec.ptx);
    let name = spec.ptx.display().to_string();
    let module = Module::parse(&name, &read_text(&ptx)?)
        .map_err(|e| Unusable::new(output::parse_error(&e)))?;
    let last = spec.seed.checked_add(seeds - 1);
    let last = last.ok_or_else(|| {
        Unusable::new(format!("{seeds} seeds from {} on pass the largest one", spec.seed))
    })?;
    for seed in spec.seed..=last {
        if once(&spec, folder, &module, seed)? == Outcome::Findings {
            return Ok(Outcome::Findings);
        }
    }
    Ok(Outcome::Clean)
}

/// One launch on a fresh device. The first seed's run saves the buffers.
fn once(spec: &LaunchSpec, folder: &Path, module: &Module, seed: u64) -> Result<Outcome, Unusable> {
    let device = Device::new();
    let buffers = fill(spec, folder, &device)?;
    let known = |key: &str, name: &String| {
        let missing = || Unusable::new(format!("{key}: there is no buffer `{name}`"));
        buffers.get(name).ok_or_else(missing)
    };
    for name in spec.save.0.keys() {
        known("save", name)?;
    }
    let of = |name| known("required", name).map(|buffer| (buffer.address, buffer.bytes));
    let required = spec.required.iter().map(of).collect::<Result<Vec<_>, _>>()?;
    let range = |(_, buffer): (&String, &Placed)| (buffer.address, buffer.bytes);
    let saved = |(name, _): &(&String, &Placed)| spec.save.0.contains_key(*name);
    let outputs: Vec<_> = buffers.iter().filter(saved).map(range).collect();
    // Nobody reads what is neither saved nor was in a file.
    let zeros = |(name, _): &(&String, &Placed)| {
        matches!(spec.buffers.0[*name].contents(name), Ok(Contents::Zeros(_)))
    };
    let scratch: Vec<_> = buffers.iter().filter(zeros).map(range).collect();
    let declared = declared(module, &spec.entry)?;
    let params = params::pack(&spec.params, &declared, &buffers)?;
    let defaults = Launch::default();
    let launch = Launch {
        grid: spec.grid,
        block: spec.block,
        dynamic_shared_bytes: spec.dynamic_shared_bytes,
        params: &params,
        seed,
        step_limit: spec.step_limit.unwrap_or(defaults.step_limit),
        total_limit: spec.total_limit.unwrap_or(defaults.total_limit),
        threads: spec.threads,
        checks: spec.checks()?,
        sm: spec.sm()?,
        mma: spec.mma(),
        required: &required,
        outputs: &outputs,
        scratch: &scratch,
        ..defaults
    };
    match device.launch(module, &spec.entry, &launch) {
        Ok(report) => {
            if !report.printed.is_empty() {
                complain(report.printed.trim_end_matches('\n'));
            }
            if seed == spec.seed {
                save(spec, folder, &device, &buffers)?;
            }
            say(&output::counters(&spec.entry, seed, &report.counters))?;
            Ok(Outcome::Clean)
        }
        Err(LaunchError::Findings(findings)) => {
            complain(&format!("{} with seed {seed}:", spec.entry));
            for finding in &findings {
                complain(&finding.to_string());
            }
            Ok(Outcome::Findings)
        }
        Err(other) => Err(Unusable::new(other.to_string().replace('\n', " "))),
    }
}

/// The parameters that an entry declares.
fn declared<'m>(module: &'m Module, entry: &str) -> Result<Vec<Declared<'m>>, Unusable> {
    let Some(params) = module.params(entry) else {
        let known: Vec<&str> = module.entries().collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        return Err(Unusable::new(format!("there is no entry `{entry}`; the file has: {known}")));
    };
    Ok(params.into_iter().map(|(name, offset, bytes)| Declared { name, offset, bytes }).collect())
}

/// Allocates and fills the buffers, in the order of their names.
fn fill(
    spec: &LaunchSpec,
    folder: &Path,
    device: &Device,
) -> Result<BTreeMap<String, Placed>, Unusable> {
    let mut left = MAX_FILLED_BYTES;
    let mut placed = BTreeMap::new();
    for (name, buffer) in &spec.buffers.0 {
        let fault = |e: &dyn std::fmt::Display| Unusable::new(format!("buffer `{name}`: {e}"));
        let mut take = |bytes: u64| {
            left = left.checked_sub(bytes).ok_or_else(|| {
                fault(&format!("{bytes} bytes, but files and zeros may fill {MAX_FILLED_BYTES} together, of which {left} are left"))
            })?;
            Ok::<_, Unusable>(())
        };
        let (address, bytes) = match buffer.contents(name)? {
            Contents::File(path) => {
                let path = folder.join(path);
                let data = fs::File::open(&path).and_then(|mut file| {
                    let mut data = Vec::new();
                    // One byte more than allowed shows that there is more.
                    file.by_ref().take(MAX_FILLED_BYTES + 1).read_to_end(&mut data).map(|_| data)
                });
                let data = data.map_err(|e| fault(&format!("{}: {e}", path.display())))?;
                take(data.len() as u64)?;
                let address = device.allocate(data.len()).map_err(|e| fault(&e))?;
                device.write(address, &data).map_err(|e| fault(&e))?;
                (address, data.len() as u64)
            }
            Contents::Zeros(bytes) => {
                take(bytes)?;
                let address = allocate(device, bytes).map_err(|e| fault(&e))?;
                const CHUNK: u64 = 1 << 20;
                for at in (0..bytes).step_by(CHUNK as usize) {
                    let zeros = vec![0; (bytes - at).min(CHUNK) as usize];
                    device.write(address + at, &zeros).map_err(|e| fault(&e))?;
                }
                (address, bytes)
            }
            Contents::Uninit(bytes) => (allocate(device, bytes).map_err(|e| fault(&e))?, bytes),
        };
        device.name(address, name).map_err(|e| fault(&e))?;
        placed.insert(name.clone(), Placed { address, bytes });
    }
    Ok(placed)
}

fn allocate(device: &Device, bytes: u64) -> Result<u64, String> {
    let size = usize::try_from(bytes)
        .map_err(|_| format!("{bytes} bytes are more than this machine can address"))?;
    device.allocate(size).map_err(|e| e.to_string())
}

/// Writes the buffers that the description names to their files, and says what of them the kernel never wrote.
fn save(
    spec: &LaunchSpec,
    folder: &Path,
    device: &Device,
    buffers: &BTreeMap<String, Placed>,
) -> Result<(), Unusable> {
    for (name, path) in &spec.save.0 {
        let fault = |e: &dyn std::fmt::Display| Unusable::new(format!("save `{name}`: {e}"));
        let Placed { address, bytes } = buffers[name];
        if bytes > MAX_FILLED_BYTES {
            return Err(fault(&format!(
                "{bytes} bytes are more than the {MAX_FILLED_BYTES} that can be saved"
            )));
        }
        let mut data = vec![0; bytes as usize];
        device.read(address, &mut data).map_err(|e| fault(&e))?;
        let path = folder.join(path);
        fs::write(&path, &data).map_err(|e| fault(&format!("{}: {e}", path.display())))?;
        if let Some(gap) = Written::of(device, address, data.len()).map_err(|e| fault(&e))?.gap() {
            complain(&format!("warning: buffer `{name}`: {gap}"));
        }
    }
    Ok(())
}

/// Reads a text file, not a directory, not something endless.
pub(super) fn read_text(path: &Path) -> Result<String, Unusable> {
    let fault = |e: &dyn std::fmt::Display| Unusable::new(format!("{}: {e}", path.display()));
    let file = fs::File::open(path).map_err(|e| fault(&e))?;
    let mut bytes = Vec::new();
    file.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes).map_err(|e| fault(&e))?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        return Err(fault(&format!("larger than {MAX_TEXT_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|e| {
        fault(&format!("not text in UTF-8 from byte {} on", e.utf8_error().valid_up_to()))
    })
}
