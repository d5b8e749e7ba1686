//! The one error type of the crate.

use crate::types::Dtype;

/// A `Result` whose error is [`enum@Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What a table on the device holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableEntry {
    /// A block id.
    BlockId,
    /// The length of a sequence, in tokens.
    SeqLen,
}

impl core::fmt::Display for TableEntry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::BlockId => "block id",
            Self::SeqLen => "length",
        })
    }
}

/// What a number beyond `i32::MAX` is in a table of `i32`, in brackets.
fn signed(value: u32) -> String {
    if value <= i32::MAX.cast_unsigned() {
        return String::new();
    }
    format!(" (as i32: {})", value.cast_signed())
}

/// Everything that can go wrong; each variant carries the offending value and its limit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A dimension that must be at least one is zero.
    #[error("{what} is 0, at least 1 is needed")]
    Zero {
        /// Name of the dimension.
        what: &'static str,
    },
    /// A value exceeds what the kernels or the index arithmetic can hold.
    #[error("{what} is {value}, the limit is {limit}")]
    TooLarge {
        /// Name of the value.
        what: &'static str,
        /// The value given.
        value: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// The head dimension is not a multiple of 8.
    #[error("head_dim is {head_dim}, a multiple of 8 from 8 to {limit} is needed")]
    HeadDim {
        /// The head dimension given.
        head_dim: usize,
        /// The largest head dimension with a kernel.
        limit: usize,
    },
    /// The query heads cannot be shared evenly among the KV heads.
    #[error("num_q_heads is {num_q_heads}, a multiple of num_kv_heads = {num_kv_heads} is needed")]
    HeadCounts {
        /// Query heads given.
        num_q_heads: usize,
        /// KV heads given.
        num_kv_heads: usize,
    },
    /// A size does not fit into 64 bits.
    #[error("{what} overflows 64 bits")]
    Overflow {
        /// What was being computed.
        what: &'static str,
    },
    /// A floating-point argument is NaN or infinite.
    #[error("{what} is {value}, a finite number is needed")]
    NotFinite {
        /// Name of the argument.
        what: &'static str,
        /// The value given.
        value: f32,
    },
    /// A block id does not name a block of the pool.
    #[error(
        "block id {id}{} at index {index} of sequence {seq}, the pool has {num_blocks} blocks",
        signed(*.id)
    )]
    BlockId {
        /// Sequence (row of the table).
        seq: usize,
        /// Index of the entry in that row.
        index: usize,
        /// The block id given.
        id: u32,
        /// Blocks of the pool.
        num_blocks: u32,
    },
    /// A sequence is longer than its row of the block table can hold.
    #[error("sequence {seq} has {len} tokens, its {blocks} blocks of {block_size} hold {limit}")]
    SeqLen {
        /// Sequence (row of the table).
        seq: usize,
        /// Tokens given.
        len: u32,
        /// Blocks given for this sequence.
        blocks: usize,
        /// Tokens per block.
        block_size: u32,
        /// Tokens those blocks hold.
        limit: u64,
    },
    /// The last block of a sequence is said to hold no token, or more than a block can.
    #[error("the last block of sequence {seq} has {tokens} tokens, 1 to {block_size} are needed")]
    LastBlock {
        /// Sequence (row of the table).
        seq: usize,
        /// Tokens given for its last block.
        tokens: i32,
        /// Tokens per block.
        block_size: u32,
    },
    /// A slot does not lie in the pool.
    #[error("slot {slot} of token {token}, the pool has {num_slots} slots")]
    Slot {
        /// Token (index into the slot mapping).
        token: usize,
        /// The slot given.
        slot: i64,
        /// Slots of the pool.
        num_slots: u64,
    },
    /// Two tokens are mapped to one slot.
    #[error("slot {slot} is given twice, at most one token may be written to a slot")]
    DuplicateSlot {
        /// The slot given twice.
        slot: i64,
    },
    /// A block is named twice where each may be named once.
    #[error("block {id} is given twice, each may be given once")]
    DuplicateBlock {
        /// The block given twice.
        id: u32,
    },
    /// A buffer or slice has too few elements.
    #[error("{what} has {len} elements, {needed} are needed")]
    TooShort {
        /// Name of the buffer.
        what: &'static str,
        /// Its elements.
        len: usize,
        /// Elements needed.
        needed: usize,
    },
    /// Two arguments that must agree do not.
    #[error("{what} is {got}, {expected} is expected")]
    Mismatch {
        /// What should agree.
        what: &'static str,
        /// The value given.
        got: u64,
        /// The value of the other side.
        expected: u64,
    },
    /// Elements are not of the type that goes with the others of a call.
    #[error("{what} is {got}, {expected} is expected")]
    Dtype {
        /// Name of the argument's type.
        what: &'static str,
        /// The type given.
        got: Dtype,
        /// The type that it has to be.
        expected: Dtype,
    },
    /// A device address does not have the alignment of what it points to.
    #[error("{what} is at {address:#x}, a multiple of {align} is needed")]
    Misaligned {
        /// Name of the argument.
        what: &'static str,
        /// The address given.
        address: u64,
        /// Alignment needed, in bytes.
        align: usize,
    },
    /// A device address is null where something is read or written.
    #[error("{what} is null, an address of device memory is needed")]
    Null {
        /// Name of the argument.
        what: &'static str,
    },
    /// A stride is so small that rows which a call writes overlap.
    #[error("{what} is {stride} elements, at least {needed} are needed or rows overlap")]
    Overlap {
        /// Name of the stride.
        what: &'static str,
        /// The stride given, in elements.
        stride: u64,
        /// The smallest with which no two rows overlap.
        needed: u64,
    },
    /// A stride is not a multiple of what the kernels read or write at once.
    #[error("{what} is {stride} elements, a multiple of {unit} is needed")]
    Stride {
        /// Name of the stride.
        what: &'static str,
        /// The stride given, in elements.
        stride: u64,
        /// What it has to be a multiple of.
        unit: u64,
    },
    /// A sequence of offsets goes back.
    #[error("{what} is {value} at index {index}, at least {limit} is needed, as before it")]
    NotAscending {
        /// Name of the argument.
        what: &'static str,
        /// Index of the entry that is below the one before it.
        index: usize,
        /// That entry.
        value: i64,
        /// The one before it, 0 for the first.
        limit: i64,
    },
    /// An argument belongs to another stream than the one the operation runs on.
    #[error("{what} belongs to another stream, every argument of a call must be on one stream")]
    OtherStream {
        /// Name of the argument.
        what: &'static str,
    },
    /// An operation that cannot be part of a graph was called while its stream is being captured.
    #[error("{operation} cannot be captured, the stream is recording a graph")]
    Capturing {
        /// The operation.
        operation: &'static str,
    },
    /// A kernel met contents of a table on the device that are out of range, and clamped them.
    #[error(
        "sequence {seq} of a table on the device has {entry} {value}{}, the limit is {limit}; its results are wrong",
        signed(*.value)
    )]
    DeviceTable {
        /// What is out of range.
        entry: TableEntry,
        /// Sequence (row of the table): the first one concerned, others may be too.
        seq: usize,
        /// The value found, the largest of that sequence.
        value: u32,
        /// The largest value allowed.
        limit: u64,
    },
    /// No kernel is built for a combination of types.
    #[error("no kernel {name} for head_dim {head_dim}, q {q}, kv {kv}")]
    NoKernel {
        /// Operation.
        name: &'static str,
        /// Head dimension (rounded up to the kernel's), 0 where it does not matter.
        head_dim: usize,
        /// Type of the new or query values.
        q: Dtype,
        /// Type of the pool.
        kv: Dtype,
    },
    /// The block allocator has no free block.
    #[error("all {num_blocks} blocks are in use")]
    OutOfBlocks {
        /// Blocks of the allocator.
        num_blocks: u32,
    },
    /// A block that is not allocated was freed, shared or copied.
    #[error("block {id} is not allocated (the allocator has blocks 0 to {last})")]
    NotAllocated {
        /// The block id given.
        id: u32,
        /// The largest block id.
        last: u32,
    },
    /// The device has too little memory left.
    #[error("the device could not allocate {bytes} bytes")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// The host has too little memory left.
    #[error("the host could not allocate {bytes} bytes")]
    HostMemory {
        /// Bytes asked for.
        bytes: u64,
    },
    /// The device or its driver cannot run the kernels.
    #[error("{what}")]
    Unsupported {
        /// What is missing, with the version or capability found and the one needed.
        what: String,
    },
    /// The driver reported an error.
    #[error("{operation}: {message}")]
    Driver {
        /// The driver call or step.
        operation: &'static str,
        /// Code and text of the driver, with its log where there is one.
        message: String,
    },
}

/// So many of a value on the host.
pub(crate) fn filled<T: Clone>(value: T, len: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    reserve(&mut list, len)?;
    list.resize(len, value);
    Ok(list)
}

/// Makes room on the host for so many more.
pub(crate) fn reserve<T>(list: &mut Vec<T>, more: usize) -> Result<()> {
    let bytes = list.len().saturating_add(more).saturating_mul(size_of::<T>());
    list.try_reserve(more).map_err(|_| Error::HostMemory { bytes: bytes as u64 })
}
