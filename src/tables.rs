//! Block tables and slot mappings: the contents that become addresses, checked and owned.
#![forbid(unsafe_code)]

use crate::buffer::Buffer;
use crate::device::Stream;
use crate::driver::Driver;
use crate::error::{Error, Result, reserve};
use crate::pool::{PoolShape, expect_in_range};

/// The ids that a table or mapping was checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockSpace {
    pub num_blocks: u32,
    pub block_size: u32,
}

impl BlockSpace {
    pub(crate) fn of(shape: PoolShape) -> Result<Self> {
        shape.check()?;
        // `check` bounds both by i32::MAX.
        Ok(Self { num_blocks: shape.num_blocks as u32, block_size: shape.block_size as u32 })
    }

    /// Fails unless a row with room for `room` blocks holds the `used` ones of a sequence of `len` tokens.
    pub(crate) fn expect_room(self, seq: usize, len: u32, used: usize, room: usize) -> Result<()> {
        if used <= room {
            return Ok(());
        }
        let block_size = self.block_size;
        let limit = room as u64 * u64::from(block_size);
        Err(Error::SeqLen { seq, len, blocks: room, block_size, limit })
    }

    /// Fails unless an entry of a row names a block; one that is negative as an `i32` never does.
    pub(crate) fn expect_block(self, seq: usize, index: usize, id: u32) -> Result<()> {
        let num_blocks = self.num_blocks;
        if id < num_blocks.min(1 << 31) {
            return Ok(());
        }
        Err(Error::BlockId { seq, index, id, num_blocks })
    }

    /// Fails unless everything checked against `self` is inside a pool of this shape.
    pub(crate) fn expect_fits(self, shape: PoolShape) -> Result<()> {
        if self.block_size as usize != shape.block_size {
            return Err(Error::Mismatch {
                what: "block_size of the pool",
                got: shape.block_size as u64,
                expected: u64::from(self.block_size),
            });
        }
        if (shape.num_blocks as u64) < u64::from(self.num_blocks) {
            return Err(Error::Mismatch {
                what: "num_blocks of the pool",
                got: shape.num_blocks as u64,
                expected: u64::from(self.num_blocks),
            });
        }
        Ok(())
    }
}

/// One sequence: its block ids in order, and how many tokens it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence<'a> {
    /// Ids of the blocks that hold tokens `0..block_size`, `block_size..2 * block_size` and so on; entries
    /// past the `ceil(len / block_size)`-th may hold anything.
    pub blocks: &'a [u32],
    /// Tokens in the cache.
    pub len: u32,
}

/// Block ids and lengths of a batch, on the device: `block_table` [num_seqs, max_blocks_per_seq], `seq_lens` \[num_seqs\].
///
/// - T1. Every id on the device is less than `space.num_blocks`: ids that tokens use were checked, the rest
///   are zero, whatever the caller left there.
/// - T2. Every length on the device is at most `max_blocks_per_seq * block_size`, and its blocks were given.
/// - T3. The device copy is written by `set` only, whole, after the check.
/// - T4. Rows past `num_seqs` that were ever written have length 0 on the device, for launches that were captured
///   with more sequences ([`crate::Graph`]).
pub struct BlockTables<'s, D: Driver> {
    space: BlockSpace,
    max_seqs: usize,
    max_blocks_per_seq: usize,
    num_seqs: usize,
    /// Rows whose length on the device may be other than 0.
    used_rows: usize,
    /// Host copies that are checked, then uploaded; kept to avoid an allocation per step.
    host_table: Vec<u32>,
    host_lens: Vec<u32>,
    block_table: Buffer<'s, D, u32>,
    seq_lens: Buffer<'s, D, u32>,
}

debug!(['s, D: Driver] BlockTables<'s, D> { space, num_seqs, max_seqs, max_blocks_per_seq });

impl<'s, D: Driver> BlockTables<'s, D> {
    /// Tables for up to `max_seqs` sequences of up to `max_blocks_per_seq` blocks, over pools with the
    /// `num_blocks` (or more) and `block_size` of `shape`. It starts with no sequences.
    ///
    /// # Errors
    ///
    /// Those of [`PoolShape::check`] and [`Buffer::uninit`]; [`Error::Zero`] and [`Error::TooLarge`] for the capacities.
    pub fn new(
        stream: &'s Stream<D>,
        shape: PoolShape,
        max_seqs: usize,
        max_blocks_per_seq: usize,
    ) -> Result<Self> {
        let space = BlockSpace::of(shape)?;
        expect_in_range("max_seqs", max_seqs, i32::MAX as usize)?;
        expect_in_range("max_blocks_per_seq", max_blocks_per_seq, i32::MAX as usize)?;
        let entries = max_seqs
            .checked_mul(max_blocks_per_seq)
            .ok_or(Error::Overflow { what: "entries of the block table" })?;
        Ok(Self {
            space,
            max_seqs,
            max_blocks_per_seq,
            num_seqs: 0,
            used_rows: 0,
            host_table: Vec::new(),
            host_lens: Vec::new(),
            block_table: Buffer::uninit(stream, entries)?,
            seq_lens: Buffer::uninit(stream, max_seqs)?,
        })
    }

    /// Replaces all sequences: checks, then copies to the device.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] for too many sequences, [`Error::SeqLen`] for a length that the blocks given (or
    /// `max_blocks_per_seq` of them) cannot hold, [`Error::BlockId`] for an id outside the pool, [`Error::HostMemory`], and
    /// those of the driver. After an error there are no sequences.
    pub fn set<'a>(&mut self, sequences: impl IntoIterator<Item = Sequence<'a>>) -> Result<()> {
        self.num_seqs = 0;
        self.host_table.clear();
        self.host_lens.clear();
        for (seq, sequence) in sequences.into_iter().enumerate() {
            if seq == self.max_seqs {
                return Err(Error::TooLarge {
                    what: "number of sequences",
                    value: seq as u64 + 1,
                    limit: self.max_seqs as u64,
                });
            }
            self.push(seq, sequence)?;
        }
        let num_seqs = self.host_lens.len();
        self.used_rows = self.used_rows.max(num_seqs);
        self.host_lens.resize(self.used_rows, 0); // T4
        self.block_table.write(&self.host_table)?;
        self.seq_lens.write(&self.host_lens)?;
        self.used_rows = num_seqs;
        self.num_seqs = num_seqs;
        Ok(())
    }

    /// Replaces all sequences by those of a padded table: `block_table` [num_seqs, width] row by row, `seq_lens` \[num_seqs\].
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] if `block_table` does not have `seq_lens.len()` rows of `width`, and those of [`BlockTables::set`].
    pub fn set_padded(
        &mut self,
        block_table: &[u32],
        width: usize,
        seq_lens: &[u32],
    ) -> Result<()> {
        if width.checked_mul(seq_lens.len()) != Some(block_table.len()) {
            return Err(Error::Mismatch {
                what: "entries of the block table",
                got: block_table.len() as u64,
                expected: (width as u64).saturating_mul(seq_lens.len() as u64),
            });
        }
        self.set(
            seq_lens
                .iter()
                .enumerate()
                .map(|(seq, &len)| Sequence { blocks: &block_table[seq * width..][..width], len }),
        )
    }

    fn push(&mut self, seq: usize, Sequence { blocks, len }: Sequence<'_>) -> Result<()> {
        let used = len.div_ceil(self.space.block_size) as usize;
        self.space.expect_room(seq, len, used, blocks.len().min(self.max_blocks_per_seq))?;
        for (index, &id) in blocks[..used].iter().enumerate() {
            self.space.expect_block(seq, index, id)?;
        }
        let row = self.host_table.len();
        reserve(&mut self.host_table, self.max_blocks_per_seq)?;
        reserve(&mut self.host_lens, 1)?;
        self.host_table.extend_from_slice(&blocks[..used]);
        self.host_table.resize(row + self.max_blocks_per_seq, 0);
        self.host_lens.push(len);
        Ok(())
    }

    /// Sequences.
    pub fn num_seqs(&self) -> usize {
        self.num_seqs
    }

    /// Largest number of sequences.
    pub fn max_seqs(&self) -> usize {
        self.max_seqs
    }

    /// Entries of a row.
    pub fn max_blocks_per_seq(&self) -> usize {
        self.max_blocks_per_seq
    }

    /// Tokens of each sequence.
    pub fn seq_lens(&self) -> &[u32] {
        &self.host_lens[..self.num_seqs]
    }

    pub(crate) fn view(&self) -> TableView<'_, 's, D> {
        TableView {
            space: self.space,
            num_seqs: self.num_seqs,
            max_blocks_per_seq: self.max_blocks_per_seq,
            block_table: &self.block_table,
            seq_lens: &self.seq_lens,
            report: None,
        }
    }
}

/// What decode needs of tables, whoever checks them.
///
/// - V1. `block_table` has `num_seqs` rows of `max_blocks_per_seq` entries at least, `seq_lens` `num_seqs` entries.
/// - V2. Their contents were checked (T1, T2), or there is a `report` of one element, which makes the launch one whose rows may be
///   wrong.
pub(crate) struct TableView<'a, 's, D: Driver> {
    pub space: BlockSpace,
    pub num_seqs: usize,
    pub max_blocks_per_seq: usize,
    pub block_table: &'a Buffer<'s, D, u32>,
    pub seq_lens: &'a Buffer<'s, D, u32>,
    pub report: Option<&'a Buffer<'s, D, u64>>,
}

/// Where the K and V of new tokens go, on the device: `slot_mapping` \[num_tokens\], slot = block * block_size + offset.
///
/// - M1. Every slot on the device is negative (skip the token) or less than the slots of the pool it was checked against.
/// - M2. No two tokens have the same slot, so that a launch has no race.
/// - M3. The device copy is written by `set` only, whole, after the check.
/// - M4. Slots past `num_tokens` that were ever written are −1 on the device, for launches that were captured with more
///   tokens ([`crate::Graph`]).
pub struct SlotMapping<'s, D: Driver> {
    space: BlockSpace,
    num_slots: u64,
    max_tokens: usize,
    num_tokens: usize,
    /// Slots that may be other than −1 on the device.
    used_tokens: usize,
    /// What is copied to the device; kept to avoid an allocation per step.
    host_slots: Vec<i64>,
    /// Slots in ascending order, to find one given twice; kept to avoid an allocation per step.
    sorted: Vec<i64>,
    slots: Buffer<'s, D, i64>,
}

debug!(['s, D: Driver] SlotMapping<'s, D> { space, num_tokens, max_tokens });

impl<'s, D: Driver> SlotMapping<'s, D> {
    /// A mapping for up to `max_tokens` tokens into pools with the `num_blocks` (or more) and `block_size` of `shape`.
    /// It starts with no tokens.
    ///
    /// # Errors
    ///
    /// Those of [`PoolShape::check`] and [`Buffer::uninit`]; [`Error::Zero`] and [`Error::TooLarge`] for the capacity.
    pub fn new(stream: &'s Stream<D>, shape: PoolShape, max_tokens: usize) -> Result<Self> {
        let space = BlockSpace::of(shape)?;
        expect_in_range("max_tokens", max_tokens, i32::MAX as usize)?;
        Ok(Self {
            space,
            num_slots: u64::from(space.num_blocks) * u64::from(space.block_size),
            max_tokens,
            num_tokens: 0,
            used_tokens: 0,
            host_slots: Vec::new(),
            sorted: Vec::new(),
            slots: Buffer::uninit(stream, max_tokens)?,
        })
    }

    /// Replaces the slots: checks, then copies to the device. A negative slot skips its token.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] for too many tokens, [`Error::Slot`] for a slot outside the pool,
    /// [`Error::DuplicateSlot`] for one given twice, [`Error::HostMemory`], and those of the driver. After an error there are no tokens.
    pub fn set(&mut self, slots: &[i64]) -> Result<()> {
        self.num_tokens = 0;
        if slots.len() > self.max_tokens {
            return Err(Error::TooLarge {
                what: "number of tokens",
                value: slots.len() as u64,
                limit: self.max_tokens as u64,
            });
        }
        for (token, &slot) in slots.iter().enumerate() {
            if u64::try_from(slot).is_ok_and(|slot| slot >= self.num_slots) {
                return Err(Error::Slot { token, slot, num_slots: self.num_slots });
            }
        }
        self.sorted.clear();
        reserve(&mut self.sorted, slots.len())?;
        self.sorted.extend(slots.iter().filter(|slot| **slot >= 0));
        self.sorted.sort_unstable();
        if let Some(pair) = self.sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::DuplicateSlot { slot: pair[0] });
        }
        self.host_slots.clear();
        reserve(&mut self.host_slots, slots.len())?;
        self.host_slots.extend_from_slice(slots);
        self.used_tokens = self.used_tokens.max(slots.len());
        self.host_slots.resize(self.used_tokens, -1); // M4
        self.slots.write(&self.host_slots)?;
        self.used_tokens = slots.len();
        self.num_tokens = slots.len();
        Ok(())
    }

    /// Tokens.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    pub(crate) fn space(&self) -> BlockSpace {
        self.space
    }

    pub(crate) fn device_slots(&self) -> &Buffer<'s, D, i64> {
        &self.slots
    }
}
