//! Each check has a folder of small kernels beside this file: mutants that it must catch, at the line and with
//! the words that stand there behind `//~`, and clean kernels, without such a comment, on which every check must
//! be silent. Each runs under several seeds, on one thread of the host and on several.
//!
//! Directives, one a line: `//@ grid X [Y Z]`, `//@ block X [Y Z]`, `//@ shared BYTES`, `//@ steps LIMIT`, `//@ checks NAMES`,
//! and one for each parameter in order: `//@ NAME zeros BYTES`, `//@ NAME uninit BYTES`, `//@ u32 VALUE`. On a buffer:
//! `//@ forbid|protect|require|output|scratch NAME OFFSET BYTES`, `//@ free NAME`.
//!
//! `//~ KIND: WORDS` stands on the line of the finding, `//~ note: WORDS` on that of a note. A race is told at
//! whichever access comes second, so both of its lines say `//~ race: WORDS` (the same line says it once).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ptx_emulator::{Checks, Device, Finding, Launch, LaunchError, Module};

/// Every seed that each kernel runs under.
const SEEDS: u64 = 8;

/// A kernel with its directives and what is expected of it.
struct Case {
    path: PathBuf,
    text: String,
}

/// What a comment behind `//~` says.
#[derive(Debug, Clone)]
struct Expected {
    line: u32,
    kind: String,
    words: String,
}

impl Case {
    fn expected(&self) -> Vec<Expected> {
        let of = |(index, line): (usize, &str)| {
            let (_, comment) = line.split_once("//~")?;
            let (kind, words) = comment.split_once(':').unwrap_or((comment, ""));
            let (kind, words) = (kind.trim().to_owned(), words.trim().to_owned());
            Some(Expected { line: index as u32 + 1, kind, words })
        };
        self.text.lines().enumerate().filter_map(of).collect()
    }

    /// Runs the kernel once; gives the finding that ended it, if any did.
    fn run(&self, seed: u64, threads: usize) -> Option<Finding> {
        let name = self.path.file_name().unwrap().to_str().unwrap();
        let module = Module::parse(name, &self.text).unwrap_or_else(|e| panic!("{e}"));
        let device = Device::new();
        let mut buffers = BTreeMap::new();
        let (mut params, mut required) = (Vec::new(), Vec::new());
        let (mut outputs, mut scratch) = (Vec::new(), Vec::new());
        let mut launch = Launch { seed, threads, step_limit: 1 << 16, ..Launch::default() };
        let number =
            |text: &str| text.parse::<usize>().unwrap_or_else(|_| panic!("{name}: {text}"));
        for line in self.text.lines().filter_map(|line| line.strip_prefix("//@ ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["grid" | "block", ..] => {
                    let mut shape = [1; 3];
                    words[1..]
                        .iter()
                        .zip(&mut shape)
                        .for_each(|(w, axis)| *axis = number(w) as u32);
                    *(if words[0] == "grid" { &mut launch.grid } else { &mut launch.block }) =
                        shape;
                }
                ["shared", bytes] => launch.dynamic_shared_bytes = number(bytes) as u32,
                ["checks", names] => launch.checks = Checks::parse(names).unwrap(),
                ["steps", limit] => launch.step_limit = number(limit) as u64,
                ["u32", value] => params.extend((number(value) as u32).to_le_bytes()),
                [buffer, fill @ ("zeros" | "uninit"), bytes] => {
                    let address = device.allocate(number(bytes)).unwrap();
                    device.name(address, buffer).unwrap();
                    if fill == "zeros" {
                        device.write(address, &vec![0; number(bytes)]).unwrap();
                    }
                    params.resize(params.len().next_multiple_of(8), 0);
                    params.extend(address.to_le_bytes());
                    buffers.insert(buffer, address);
                }
                ["forbid", buffer, from, len] => {
                    device.forbid(buffers[buffer] + number(from) as u64, number(len)).unwrap();
                }
                ["protect", buffer, from, len] => {
                    device.protect(buffers[buffer] + number(from) as u64, number(len)).unwrap();
                }
                ["require", buffer, from, len] => {
                    required.push((buffers[buffer] + number(from) as u64, number(len) as u64));
                }
                [kind @ ("output" | "scratch"), buffer, from, len] => {
                    let range = (buffers[buffer] + number(from) as u64, number(len) as u64);
                    (if kind == "output" { &mut outputs } else { &mut scratch }).push(range);
                }
                ["free", buffer] => device.free(buffers[buffer]).unwrap(),
                _ => panic!("{name}: what is `{line}`?"),
            }
        }
        let entry = module.entries().next().unwrap();
        match device.launch(
            &module,
            entry,
            &Launch {
                params: &params,
                required: &required,
                outputs: &outputs,
                scratch: &scratch,
                ..launch
            },
        ) {
            Ok(_) => None,
            Err(LaunchError::Findings(mut found)) => Some(found.remove(0)),
            Err(error) => panic!("{name}: {error}"),
        }
    }

    fn check(&self, seed: u64, threads: usize) {
        let expected = self.expected();
        let run = format!("{} under seed {seed} on {threads} threads", self.path.display());
        let Some(finding) = self.run(seed, threads) else {
            assert!(expected.is_empty(), "{run}: nothing was found");
            return;
        };
        assert!(!expected.is_empty(), "{run}: a false finding\n{finding}");
        let lines =
            || finding.notes.iter().filter_map(|note| Some((note.line.as_ref()?.0, &note.message)));
        let kind = finding.kind.name();
        let at_site = |e: &Expected| {
            e.kind == kind && e.line == finding.site.line && finding.message.contains(&e.words)
        };
        if kind == "race" {
            let mut want: Vec<u32> = expected.iter().map(|e| e.line).collect();
            let mut have = vec![finding.site.line, lines().next().expect("the other access").0];
            have.sort_unstable();
            have.dedup();
            want.dedup();
            assert_eq!(have, want, "{run}\n{finding}");
            assert!(expected.iter().any(at_site), "{run}\n{finding}");
            return;
        }
        let (notes, sites): (Vec<_>, Vec<_>) = expected.iter().partition(|e| e.kind == "note");
        assert!(sites.into_iter().any(at_site), "{run}\n{finding}");
        for note in notes {
            let told = lines().any(|(line, text)| line == note.line && text.contains(&note.words));
            assert!(told, "{run}: no such note: {}\n{finding}", note.words);
        }
    }
}

/// Runs all kernels of a folder; each has to hold mutants and clean ones.
fn check(folder: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checks").join(folder);
    let mut counts = [0, 0];
    let mut paths: Vec<_> = path.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let case = Case { path, text };
        counts[usize::from(case.expected().is_empty())] += 1;
        for seed in 0..SEEDS {
            case.check(seed, 1);
        }
        case.check(1, 3);
    }
    assert!(
        counts[0] > 0 && counts[1] > 0,
        "{folder}: {} mutants, {} clean kernels",
        counts[0],
        counts[1]
    );
}

/// A test for each folder, by its name.
macro_rules! folders {
    ($($folder:ident)*) => {$(
        #[test]
        fn $folder() {
            check(stringify!($folder));
        }
    )*};
}

folders! {
    out_of_bounds misaligned use_after_free forbidden read_only uninitialised_memory uninitialised_registers
    in_flight unwritten_outputs wrong_space barriers membermasks aligned deadlocks step_limit
    shared_races global_races global_races_in_a_cta
}
