//! Block tables in FlashInfer's form.
#![forbid(unsafe_code)]

use crate::decode::expect_equal;
use crate::error::{Error, Result};

/// Writes a padded table and lengths from FlashInfer's form: sequence i has the blocks
/// `indices[indptr[i]..indptr[i + 1]]`, the last of which holds `last_page_len[i]` tokens.
///
/// `block_table` [num_seqs, max_blocks_per_seq] and `seq_lens` `[num_seqs]` are overwritten; entries past a
/// sequence's blocks become 0. What they then hold meets the contract of [`super::decode()`] for pools with `num_blocks`
/// blocks (or more) of `block_size`; after an error it need not.
///
/// # Errors
///
/// [`Error::Mismatch`] if the slices' lengths do not fit together or `indptr` does not end at `indices.len()`;
/// [`Error::NotAscending`] for `indptr`; [`Error::SeqLen`] for more blocks than a row holds and for a last block
/// that is empty or overfull; [`Error::BlockId`].
pub fn pad_csr(
    csr: CsrTable<'_>,
    num_blocks: u32,
    block_size: u32,
    block_table: &mut [u32],
    seq_lens: &mut [u32],
) -> Result<()> {
    let CsrTable { indptr, indices, last_page_len } = csr;
    let num_seqs = last_page_len.len();
    expect_equal("entries of indptr", indptr.len(), num_seqs + 1)?;
    expect_equal("entries of seq_lens", seq_lens.len(), num_seqs)?;
    let width = block_table.len().checked_div(num_seqs).unwrap_or(0);
    expect_equal("entries of block_table", block_table.len(), width * num_seqs)?;
    let at = |index: usize| usize::try_from(indptr[index]).unwrap_or(usize::MAX);
    expect_equal("first entry of indptr", at(0), 0)?;
    expect_equal("last entry of indptr", at(num_seqs), indices.len())?;
    if let Some(index) = (0..num_seqs).find(|&seq| at(seq) > at(seq + 1)) {
        return Err(Error::NotAscending { what: "indptr", index: index + 1 });
    }
    for seq in 0..num_seqs {
        let ids = &indices[at(seq)..at(seq + 1)];
        let last = u32::try_from(last_page_len[seq]).unwrap_or(u32::MAX);
        let full = (ids.len() as u64).saturating_sub(1) * u64::from(block_size);
        let len = u32::try_from(full + u64::from(last)).unwrap_or(u32::MAX);
        // An empty sequence has no blocks, and whatever FlashInfer's callers write for its last one.
        let fits = ids.is_empty() || (last >= 1 && last <= block_size && len < u32::MAX);
        if !fits || ids.len() > width {
            let limit = ids.len().min(width) as u64 * u64::from(block_size);
            return Err(Error::SeqLen { seq, len, blocks: width, block_size, limit });
        }
        let row = &mut block_table[seq * width..][..width];
        row.fill(0);
        for (index, (entry, &id)) in row.iter_mut().zip(ids).enumerate() {
            *entry = u32::try_from(id).unwrap_or(u32::MAX);
            if *entry >= num_blocks {
                return Err(Error::BlockId { seq, index, id: *entry, num_blocks });
            }
        }
        seq_lens[seq] = if ids.is_empty() { 0 } else { len };
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
