//! The bottom layer: tables of other engines, and what is refused before it reaches a kernel.

use pagedptx::Error;
use pagedptx::raw::{CsrTable, pad_csr};
use proptest::prelude::*;

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

/// What a table in FlashInfer's form means, where it means something: padded rows and lengths.
fn meaning(
    csr: CsrTable<'_>,
    num_blocks: u32,
    block_size: u32,
    width: usize,
) -> Option<(Vec<u32>, Vec<u32>)> {
    let mut bounds = Vec::new();
    for &bound in csr.indptr {
        bounds.push(usize::try_from(bound).ok()?);
    }
    let right = bounds.len() == csr.last_page_len.len() + 1
        && bounds[0] == 0
        && bounds[bounds.len() - 1] == csr.indices.len()
        && bounds.is_sorted();
    let (mut table, mut lens) = (Vec::new(), Vec::new());
    for (bounds, &last) in right.then(|| bounds.windows(2))?.zip(csr.last_page_len) {
        let ids = &csr.indices[bounds[0]..bounds[1]];
        let mut row = Vec::new();
        for &id in ids {
            row.push(u32::try_from(id).ok().filter(|id| *id < num_blocks)?);
        }
        row.resize(width.max(ids.len()), 0);
        let (blocks, block_size) = (ids.len() as i64, i64::from(block_size));
        let last = i64::from(last);
        let len = if blocks == 0 { 0 } else { (blocks - 1) * block_size + last };
        let fits = blocks == 0 || (1..=block_size).contains(&last);
        lens.push((fits && row.len() == width).then_some(len)?.try_into().ok()?);
        table.extend(row);
    }
    Some((table, lens))
}

/// Numbers of which most are small and right, some wrong and some wild.
fn entry(most: i32) -> impl Strategy<Value = i32> {
    prop_oneof![12 => 0..most, 1 => -2..=most + 1, 1 => any::<i32>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the numbers, a table is taken exactly if it means something, and then padded to just that.
    #[test]
    fn csr_tables_are_taken_if_they_mean_something(
        steps in prop::collection::vec(entry(3), 0..5),
        first in prop_oneof![20 => Just(0), 1 => any::<i32>()],
        seqs in prop_oneof![10 => Just(None), 1 => (0..6_usize).prop_map(Some)],
        ids in prop::collection::vec(entry(7), 12),
        dropped in prop_oneof![10 => Just(0), 1 => 0..3_usize],
        last in prop::collection::vec(prop_oneof![12 => 1..=4, 1 => -1..=6, 1 => any::<i32>()], 6),
        width in 2..4_usize,
        block_size in prop_oneof![10 => Just(4), 1 => 0..6_u32, 1 => any::<u32>()],
        num_blocks in prop_oneof![10 => Just(7), 1 => any::<u32>()],
    ) {
        let indptr: Vec<i32> = [first]
            .into_iter()
            .chain(steps.iter().scan(first, |end, step| {
                *end = end.wrapping_add(*step);
                Some(*end)
            }))
            .collect();
        let used = usize::try_from(indptr[indptr.len() - 1]).unwrap_or(0).min(ids.len());
        let seqs = seqs.unwrap_or(steps.len());
        let csr = CsrTable {
            indptr: &indptr,
            indices: &ids[..used.saturating_sub(dropped)],
            last_page_len: &last[..seqs],
        };
        let (mut table, mut lens) = (vec![99; width * seqs], vec![99; seqs]);
        let result = pad_csr(csr, num_blocks, block_size, &mut table, &mut lens);
        let expected = meaning(csr, num_blocks, block_size, width);
        prop_assert_eq!(result.is_ok(), expected.is_some(), "{:?}", result);
        if let Some(expected) = expected {
            prop_assert_eq!((table, lens), expected);
        }
    }
}
