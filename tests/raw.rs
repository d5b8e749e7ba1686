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
    let narrow = Err(Error::SeqLen { seq: 0, len: 5, blocks: 1, block_size: 4, limit: 4 });
    assert_eq!(pad(CSR, 1), narrow);
    let last = |seq, tokens| Err(Error::LastBlock { seq, tokens, block_size: 4 });
    assert_eq!(pad(CsrTable { last_page_len: &[0, 0, 4], ..CSR }, 2), last(0, 0));
    assert_eq!(pad(CsrTable { last_page_len: &[1, 0, 5], ..CSR }, 3), last(2, 5));
    assert_eq!(pad(CsrTable { last_page_len: &[-7, 0, 4], ..CSR }, 2), last(0, -7));
    let id = |id| Err(Error::BlockId { seq: 2, index: 1, id, num_blocks: 10 });
    assert_eq!(pad(CsrTable { indices: &[7, 3, 0, 10], ..CSR }, 2), id(10));
    assert_eq!(pad(CsrTable { indices: &[7, 3, 0, -2], ..CSR }, 2), id(u32::MAX - 1));
    let descending =
        |index, value, limit| Err(Error::NotAscending { what: "indptr", index, value, limit });
    assert_eq!(pad(CsrTable { indptr: &[0, 2, 1, 4], ..CSR }, 2), descending(2, 1, 2));
    assert_eq!(pad(CsrTable { indptr: &[0, -3, 2, 4], ..CSR }, 2), descending(1, -3, 0));
    assert_eq!(pad(CsrTable { indptr: &[-1, 2, 2, 4], ..CSR }, 2), descending(0, -1, 0));
    assert_eq!(pad(CsrTable { indptr: &[0, 2, 2, -4], ..CSR }, 2), descending(3, -4, 2));
    let mismatch = |what, got, expected| Err(Error::Mismatch { what, got, expected });
    let short = CsrTable { indptr: &[0, 2, 4], ..CSR };
    assert_eq!(pad(short, 2), mismatch("entries of indptr", 3, 4));
    let late = CsrTable { indptr: &[1, 2, 2, 4], ..CSR };
    assert_eq!(pad(late, 2), mismatch("first entry of indptr", 1, 0));
    let long = CsrTable { indptr: &[0, 2, 2, 5], ..CSR };
    assert_eq!(pad(long, 2), mismatch("last entry of indptr", 5, 4));
}

/// No id that is negative passes, whatever number of blocks a pool is said to have, and no sequence has more tokens than can be counted.
#[test]
fn csr_tables_of_pools_without_end() {
    let (mut table, mut lens) = ([0; 3], [0]);
    let csr = CsrTable { indptr: &[0, 3], indices: &[1, -2, 3], last_page_len: &[1] };
    let error = pad_csr(csr, u32::MAX, 4, &mut table, &mut lens).unwrap_err();
    assert_eq!(
        error.to_string(),
        "block id 4294967294 (as i32: -2) at index 1 of sequence 0, the pool has 4294967295 blocks"
    );
    let long = CsrTable { indices: &[1, 2, 3], ..csr };
    let error = pad_csr(long, 10, 1 << 31, &mut table, &mut lens).unwrap_err();
    let (what, value, limit) = ("tokens of a sequence", (1 << 32) + 1, u32::MAX.into());
    assert_eq!(error, Error::TooLarge { what, value, limit });
    let none = CsrTable { last_page_len: &[0], ..csr };
    let error = pad_csr(none, 10, 0, &mut table, &mut lens).unwrap_err();
    assert_eq!(error, Error::LastBlock { seq: 0, tokens: 0, block_size: 0 });
}
