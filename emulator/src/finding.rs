//! What a kernel did wrong, and how it is shown.

use std::fmt;

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// An access outside of every allocation, or beyond shared, local or parameter memory.
    OutOfBounds,
    /// An address that is not a multiple of the access's size.
    Misaligned,
    /// An access to memory that has been freed.
    UseAfterFree,
    /// An access to a range that the host has forbidden.
    Forbidden,
    /// A write to a range that the host has protected.
    ReadOnly,
    /// A read of a byte that nobody has written.
    UninitialisedMemory,
    /// A read of a register that nobody has written.
    UninitialisedRegister,
    /// A byte that the launch had to write and that nobody has written.
    UnwrittenOutput,
    /// An access to bytes that an asynchronous copy has still to write, or a write to those that it has still to read.
    InFlight,
    /// An address of one state space used with an instruction of another.
    WrongSpace,
    /// A barrier that only a part of the CTA reaches.
    Barrier,
    /// A barrier used in a way that its definition excludes.
    BarrierMisuse,
    /// Lanes named in a membermask that never arrive, or a lane that its membermask does not name.
    Membermask,
    /// Lanes of a warp that had to be together and were not.
    Divergence,
    /// Threads that wait for each other for ever.
    Deadlock,
    /// More instructions than the step limit of the launch.
    StepLimit,
    /// Two accesses to one byte, one of them a write, that nothing orders.
    Race,
    /// More calls inside calls than the stack of a thread holds.
    StackOverflow,
    /// `trap`, or a failed assertion of the kernel.
    Trap,
    /// An operand value that the instruction does not define.
    Operand,
}

impl FindingKind {
    /// A short name in lower case with dashes.
    pub fn name(self) -> &'static str {
        use FindingKind::*;
        match self {
            OutOfBounds => "out-of-bounds",
            Misaligned => "misaligned",
            UseAfterFree => "use-after-free",
            Forbidden => "forbidden",
            ReadOnly => "read-only",
            UninitialisedMemory => "uninitialised-memory",
            UninitialisedRegister => "uninitialised-register",
            UnwrittenOutput => "unwritten-output",
            InFlight => "in-flight",
            WrongSpace => "wrong-space",
            Barrier => "barrier",
            BarrierMisuse => "barrier-misuse",
            Membermask => "membermask",
            Divergence => "divergence",
            Deadlock => "deadlock",
            StepLimit => "step-limit",
            Race => "race",
            StackOverflow => "stack-overflow",
            Trap => "trap",
            Operand => "operand",
        }
    }
}

/// Which instruction of which thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The PTX file's name.
    pub file: String,
    /// Its line, counted from 1.
    pub line: u32,
    /// The text of that line.
    pub text: String,
    /// The entry that was launched.
    pub entry: String,
    /// `%ctaid`.
    pub cta: [u32; 3],
    /// Index of the warp in its CTA.
    pub warp: u32,
    /// Lane of the warp.
    pub lane: u32,
    /// `%tid`.
    pub thread: [u32; 3],
}

/// Something that belongs to a finding: the other access of a race, a thread that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Line of the PTX file and its text, where the note is about one.
    pub line: Option<(u32, String)>,
    /// What is noted.
    pub message: String,
}

/// A fault of a kernel. It ends the launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub kind: FindingKind,
    /// What happened, in one line.
    pub message: String,
    /// Where it happened.
    pub site: Site,
    /// The address, where there is one.
    pub address: Option<u64>,
    /// What else belongs to it.
    pub notes: Vec<Note>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let site = &self.site;
        let width = site.line.to_string().len();
        writeln!(f, "error[{}]: {}", self.kind.name(), self.message)?;
        writeln!(f, "{:width$}--> {}:{} in {}", "", site.file, site.line, site.entry)?;
        writeln!(f, "{:width$} |", "")?;
        writeln!(f, "{} | {}", site.line, site.text)?;
        writeln!(f, "{:width$} |", "")?;
        let ([cx, cy, cz], [tx, ty, tz]) = (site.cta, site.thread);
        write!(f, "{:width$} = CTA ({cx}, {cy}, {cz}), warp {}, ", "", site.warp)?;
        write!(f, "lane {}, thread ({tx}, {ty}, {tz})", site.lane)?;
        if let Some(address) = self.address {
            write!(f, ", address {address:#x}")?;
        }
        for note in &self.notes {
            write!(f, "\n{:width$} = note: {}", "", note.message)?;
            if let Some((line, text)) = &note.line {
                write!(f, "\n{:width$}   line {line}: {text}", "")?;
            }
        }
        Ok(())
    }
}

/// A finding as a handler makes it; the scheduler adds where it happened.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) kind: FindingKind,
    pub(crate) lane: usize,
    pub(crate) message: String,
    pub(crate) address: Option<u64>,
    /// Program counter, if any, and text.
    pub(crate) notes: Vec<(Option<u32>, String)>,
}
