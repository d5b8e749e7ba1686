//! Block tables in FlashInfer's form.
#![forbid(unsafe_code)]

use crate::decode::expect_equal;
use crate::error::{Error, Result};
use crate::tables::BlockSpace;

/// Writes a padded table and lengths from FlashInfer's form: sequence i has the blocks
/// `indices[indptr[i]..indptr[i + 1]]`, the last of which holds `last_page_len[i]` tokens.
///
/// `block_table` [num_seqs, max_blocks_per_seq] and `seq_lens` `[num_seqs]` are overwritten; entries past a
/// sequence's blocks become 0. What they then hold meets the contract of [`super::decode()`] for pools with `num_blocks`
/// blocks (or more) of `block_size`; after an error it need not.
///
/// # Errors
///
/// [`Error::Mismatch`] if the slices' lengths do not fit together or `indptr` does not begin at 0 or end at `indices.len()`;
/// [`Error::NotAscending`] for `indptr`, negative entries included; [`Error::SeqLen`] for more blocks than a row holds;
/// [`Error::LastBlock`] for a last one that is empty or overfull; [`Error::TooLarge`] for more than 2³² − 1 tokens; [`Error::BlockId`],
/// whose `id` is the entry's bits.
pub fn pad_csr(
    csr: CsrTable<'_>,
    num_blocks: u32,
    block_size: u32,
    block_table: &mut [u32],
    seq_lens: &mut [u32],
) -> Result<()> {
    let CsrTable { indptr, indices, last_page_len } = csr;
    let space = BlockSpace { num_blocks, block_size };
    let num_seqs = last_page_len.len();
    expect_equal("entries of indptr", indptr.len(), num_seqs + 1)?;
    expect_equal("entries of seq_lens", seq_lens.len(), num_seqs)?;
    let width = block_table.len().checked_div(num_seqs).unwrap_or(0);
    expect_equal("entries of block_table", block_table.len(), width * num_seqs)?;
    let mut before = 0;
    for (index, &entry) in indptr.iter().enumerate() {
        if entry < before {
            let (value, limit) = (entry.into(), before.into());
            return Err(Error::NotAscending { what: "indptr", index, value, limit });
        }
        before = entry;
    }
    // None is negative, as was just seen.
    let at = |index: usize| indptr[index] as usize;
    expect_equal("first entry of indptr", at(0), 0)?;
    expect_equal("last entry of indptr", at(num_seqs), indices.len())?;
    for seq in 0..num_seqs {
        let ids = &indices[at(seq)..at(seq + 1)];
        // An empty sequence has no blocks, and whatever FlashInfer's callers write for its last one.
        let len = match ids.len() {
            0 => 0,
            blocks => {
                let tokens = last_page_len[seq];
                let last = u32::try_from(tokens).unwrap_or(0);
                if last == 0 || last > block_size {
                    return Err(Error::LastBlock { seq, tokens, block_size });
                }
                (blocks as u64 - 1) * u64::from(block_size) + u64::from(last)
            }
        };
        let limit = u32::MAX.into();
        let len = u32::try_from(len).map_err(|_| Error::TooLarge {
            what: "tokens of a sequence",
            value: len,
            limit,
        })?;
        space.expect_room(seq, len, ids.len(), width)?;
        let row = &mut block_table[seq * width..][..width];
        row.fill(0);
        for (index, (entry, &id)) in row.iter_mut().zip(ids).enumerate() {
            *entry = id.cast_unsigned();
            space.expect_block(seq, index, *entry)?;
        }
        seq_lens[seq] = len;
    }
    Ok(())
}

/// Block tables as FlashInfer takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CsrTable<'a> {
    /// Where each sequence's blocks begin in `indices`, and the end, `[num_seqs + 1]`.
    pub indptr: &'a [i32],
    /// Block ids of all sequences, one after the other.
    pub indices: &'a [i32],
    /// Tokens in the last block of each sequence, 1 to block_size, `[num_seqs]`; of no meaning for one without blocks.
    pub last_page_len: &'a [i32],
}
