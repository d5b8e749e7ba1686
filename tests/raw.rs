//! The bottom layer: tables of other engines, and what is refused before it reaches a kernel.

use pagedptx::Error;
use pagedptx::raw::{CsrTable, pad_csr};

/// Three sequences of 5, 0 and 8 tokens in blocks of 4.
const CSR: CsrTable<'_> =
    CsrTable { indptr: &[0, 2, 2, 4], indices: &[7, 3, 0, 9], last_page_len: &[1, 0, 4] };

/// `pad_csr` into rows of `width` blocks of 4, of a pool of 10.
fn pad(csr: CsrTable<'_>, width: usize) -> Result<(Vec<u32>, Vec<u32>), Error> {
    let num_seqs = csr.last_page_len.len();
    let (mut table, mut lens) = (vec![99; width * num_seqs], vec![99; num_seqs]);
    pad_csr(csr, 10, 4, &mut table, &mut lens)?;
    Ok((table, lens))
}

/// Rows hold each sequence's blocks in order, then zeros; lengths count full blocks and the last one's tokens.
#[test]
fn csr_tables_are_padded() {
    assert_eq!(pad(CSR, 3), Ok((vec![7, 3, 0, 0, 0, 0, 0, 9, 0], vec![5, 0, 8])));
    assert_eq!(pad(CSR, 2), Ok((vec![7, 3, 0, 0, 0, 9], vec![5, 0, 8])));
    let none = CsrTable { indptr: &[0], indices: &[], last_page_len: &[] };
    assert_eq!(pad(none, 2), Ok((vec![], vec![])));
}

/// Everything that would make a kernel leave the pool or a row is an error that names it.
#[test]
fn csr_tables_that_do_not_fit_are_refused() {
    let seq_len = |seq, len, blocks| {
        Err(Error::SeqLen { seq, len, blocks, block_size: 4, limit: 4 * blocks.min(2) as u64 })
    };
    assert_eq!(pad(CSR, 1), seq_len(0, 5, 1));
    assert_eq!(pad(CsrTable { last_page_len: &[0, 0, 4], ..CSR }, 2), seq_len(0, 4, 2));
    assert_eq!(pad(CsrTable { last_page_len: &[1, 0, 5], ..CSR }, 2), seq_len(2, 9, 2));
    assert_eq!(pad(CsrTable { last_page_len: &[-1, 0, 4], ..CSR }, 2), seq_len(0, u32::MAX, 2));
    let id = |id| Err(Error::BlockId { seq: 2, index: 1, id, num_blocks: 10 });
    assert_eq!(pad(CsrTable { indices: &[7, 3, 0, 10], ..CSR }, 2), id(10));
    assert_eq!(pad(CsrTable { indices: &[7, 3, 0, -1], ..CSR }, 2), id(u32::MAX));
    let descending = Err(Error::NotAscending { what: "indptr", index: 2 });
    assert_eq!(pad(CsrTable { indptr: &[0, 2, 1, 4], ..CSR }, 2), descending);
    let mismatch = |what, got, expected| Err(Error::Mismatch { what, got, expected });
    let short = CsrTable { indptr: &[0, 2, 4], ..CSR };
    assert_eq!(pad(short, 2), mismatch("entries of indptr", 3, 4));
    let late = CsrTable { indptr: &[1, 2, 2, 4], ..CSR };
    assert_eq!(pad(late, 2), mismatch("first entry of indptr", 1, 0));
    let long = CsrTable { indptr: &[0, 2, 2, 5], ..CSR };
    assert_eq!(pad(long, 2), mismatch("last entry of indptr", 5, 4));
}
