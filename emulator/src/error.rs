//! Errors that are about the text or the launch, not about what a kernel did.

use std::sync::{Arc, OnceLock};

use thiserror::Error;

use crate::finding::Finding;

/// The text of one PTX file, kept so that errors and findings can quote it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
    /// Where each line starts, found when the first is asked for.
    starts: OnceLock<Vec<usize>>,
}

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Source {
        Source { name: name.to_owned(), text: text.to_owned(), starts: OnceLock::new() }
    }

    /// The text of a line, 1-based, without its line break.
    pub(crate) fn line(&self, number: u32) -> &str {
        let starts = self.starts.get_or_init(|| {
            let breaks = self.text.match_indices('\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(breaks).collect()
        });
        let index = (number as usize).saturating_sub(1);
        let Some(&start) = starts.get(index) else { return "" };
        let end = starts.get(index + 1).map_or(self.text.len(), |&next| next);
        self.text[start..end].trim_end()
    }
}

/// PTX text that this crate does not accept: malformed, or with something in it that it does not know.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[error("{file}:{line}: {message}\n  |\n  | {text}\n  |")]
pub struct ParseError {
    /// Name of the file as it was given.
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// The text of that line.
    pub text: String,
    /// What is wrong with it.
    pub message: String,
}

/// An error about a line, before the file is known.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) line: u32,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> Self {
        Fault { line, message: message.into() }
    }

    pub(crate) fn locate(self, source: &Arc<Source>) -> ParseError {
        let text = source.line(self.line).trim();
        let text: String = text.chars().take(200).collect();
        ParseError { file: source.name.clone(), line: self.line, text, message: self.message }
    }
}

/// A host-side use of device memory that cannot be carried out.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// More memory was asked for than the device has left.
    #[error("{requested} bytes requested, but {left} of the device's {capacity} bytes are left")]
    OutOfMemory {
        /// Bytes asked for.
        requested: u64,
        /// Bytes still free.
        left: u64,
        /// Bytes of the device.
        capacity: u64,
    },
    /// The address is not the start of a live allocation.
    #[error("{address:#x} is not the start of a live allocation")]
    NotAnAllocation {
        /// The address given.
        address: u64,
    },
    /// The range does not lie inside one live allocation.
    #[error("{bytes} bytes at {address:#x} do not lie inside one live allocation")]
    OutOfBounds {
        /// The address given.
        address: u64,
        /// Length of the range.
        bytes: u64,
    },
    /// A kernel has stored an undefined value there.
    #[error(
        "the value at {address:#x} was undefined when it was stored; with the range in `Launch::outputs`, the store is a finding"
    )]
    Undefined {
        /// The first such byte of the range.
        address: u64,
    },
}

/// Why a launch gave no report.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The kernel did something wrong; each finding says what and where.
    #[error("{}", render(.0))]
    Findings(Vec<Finding>),
    /// The launch itself is impossible: no such entry, parameters of another size, a block too large.
    #[error("unusable launch: {0}")]
    Unusable(String),
}

fn render(findings: &[Finding]) -> String {
    findings.iter().map(|f| f.to_string()).collect::<Vec<_>>().join("\n")
}
