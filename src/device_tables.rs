//! Block tables that something on the device writes, whose contents the host never sees.
#![forbid(unsafe_code)]

use crate::buffer::Buffer;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::pool::{PoolShape, expect_in_range};
use crate::raw::check_error_word;
use crate::tables::{BlockSpace, TableView};

/// Block ids and lengths of a batch that live on the device and that nobody checked: `block_table` [num_seqs, max_blocks_per_seq],
/// `seq_lens` \[num_seqs\].
///
/// For engines whose own kernels write tables (speculative decoding, scheduling on the device) at [`Buffer::address`]. Whatever
/// they hold, [`crate::decode_checked`] reads nothing outside the pool: it clamps ids and lengths, and the first
/// sequence that needed it is an error value of [`DeviceTables::check`]. Where the host has the tables, [`crate::BlockTables`] finds
/// offenders before anything runs.
///
/// ```
/// use pagedptx::{Buffer, DecodeArgs, DecodePlan, DeviceTables, Driver, KvPool, Result, decode_checked};
///
/// /// Attends, and says whether the tables were in order.
/// fn attend<'s, D: Driver>(
///     plan: &mut DecodePlan<'s, D, f32, f32>,
///     pool: &KvPool<'s, D, f32>,
///     tables: &mut DeviceTables<'s, D>,
///     q: &Buffer<'s, D, f32>,
///     out: &mut Buffer<'s, D, f32>,
/// ) -> Result<()> {
///     decode_checked(plan, pool, tables, DecodeArgs { q, out, lse: None, sm_scale: 0.125 })?;
///     tables.check() // waits for the device: now and then is enough
/// }
/// ```
///
/// - U1. Nothing is assumed of the contents of `block_table` and `seq_lens`; their sizes are compared with `num_seqs` and
///   `max_blocks_per_seq` at every call, as the buffers can be replaced.
/// - U2. `report` is 0 or the report of a launch over these tables since the last `check`. It stays on the stream that the tables were
///   made on, so that buffers of another one make calls fail.
pub struct DeviceTables<'s, D: Driver> {
    shape: PoolShape,
    space: BlockSpace,
    num_seqs: usize,
    max_blocks_per_seq: usize,
    block_table: Buffer<'s, D, u32>,
    seq_lens: Buffer<'s, D, u32>,
    report: Buffer<'s, D, u64>,
}

debug!(['s, D: Driver] DeviceTables<'s, D> { space, num_seqs, max_blocks_per_seq });

impl<'s, D: Driver> DeviceTables<'s, D> {
    /// Tables of `seq_lens.len()` sequences of up to `max_blocks_per_seq` blocks, over pools with the `num_blocks` (or more)
    /// and `block_size` of `shape`. Ids and lengths are `u32` or non-negative `i32`.
    ///
    /// # Errors
    ///
    /// Those of [`PoolShape::check`] and [`Buffer::zeroed`]; [`Error::Zero`] and [`Error::TooLarge`] for the counts;
    /// [`Error::TooShort`] if `block_table` does not have that many rows; [`Error::OtherStream`].
    pub fn new(
        shape: PoolShape,
        block_table: Buffer<'s, D, u32>,
        seq_lens: Buffer<'s, D, u32>,
        max_blocks_per_seq: usize,
    ) -> Result<Self> {
        let space = BlockSpace::of(shape)?;
        expect_in_range("num_seqs", seq_lens.len(), i32::MAX as usize)?;
        expect_in_range("max_blocks_per_seq", max_blocks_per_seq, i32::MAX as usize)?;
        block_table.stream().expect_same("the lengths", seq_lens.stream())?;
        let report = Buffer::zeroed(block_table.stream(), 1)?;
        let num_seqs = seq_lens.len();
        let tables =
            Self { shape, space, num_seqs, max_blocks_per_seq, block_table, seq_lens, report };
        tables.view()?;
        Ok(tables)
    }

    /// Attends to the first `num_seqs` sequences only.
    ///
    /// # Errors
    ///
    /// [`Error::TooShort`] if the buffers hold fewer, [`Error::Overflow`] if no table could hold as many.
    pub fn set_num_seqs(&mut self, num_seqs: usize) -> Result<()> {
        let before = core::mem::replace(&mut self.num_seqs, num_seqs);
        let fits = self.view().map(|_| ());
        if fits.is_err() {
            self.num_seqs = before;
        }
        fits
    }

    /// Sequences.
    pub fn num_seqs(&self) -> usize {
        self.num_seqs
    }

    /// Entries of a row.
    pub fn max_blocks_per_seq(&self) -> usize {
        self.max_blocks_per_seq
    }

    /// Block ids, [num_seqs, max_blocks_per_seq].
    pub fn block_table(&self) -> &Buffer<'s, D, u32> {
        &self.block_table
    }

    /// Block ids, to be written.
    pub fn block_table_mut(&mut self) -> &mut Buffer<'s, D, u32> {
        &mut self.block_table
    }

    /// Tokens of each sequence, \[num_seqs\].
    pub fn seq_lens(&self) -> &Buffer<'s, D, u32> {
        &self.seq_lens
    }

    /// Tokens of each sequence, to be written.
    pub fn seq_lens_mut(&mut self) -> &mut Buffer<'s, D, u32> {
        &mut self.seq_lens
    }

    /// Waits for all launches so far, and fails if one of them since the last `check` met an entry that is out of range.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceTable`], which names a length, if one is out of range, else a block id, of the first sequence concerned;
    /// those of the driver.
    pub fn check(&mut self) -> Result<()> {
        let mut word = [0];
        self.report.read(&mut word)?;
        if word[0] != 0 {
            self.report.clear("a read")?;
        }
        check_error_word(word[0], self.shape, self.max_blocks_per_seq)
    }

    /// What a launch reads (V1 by U1, V2 by U2).
    pub(crate) fn view(&self) -> Result<TableView<'_, 's, D>> {
        let Self { space, num_seqs, max_blocks_per_seq, .. } = *self;
        let entries = num_seqs
            .checked_mul(max_blocks_per_seq)
            .ok_or(Error::Overflow { what: "entries of the block table" })?;
        self.block_table.expect_len("block_table", entries)?;
        self.seq_lens.expect_len("seq_lens", num_seqs)?;
        Ok(TableView {
            space,
            num_seqs,
            max_blocks_per_seq,
            block_table: &self.block_table,
            seq_lens: &self.seq_lens,
            report: Some(&self.report),
        })
    }
}
