//! From the bytes of a file to a [`Case`]: types, shapes and index ranges checked.

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use super::meta::{Kind, Meta, need};
use super::{Case, CaseError, Parts, Recorded};
use crate::dtype::Dtype;
use crate::problem::{Append, Attention, Mask, Merge, Scale, Stepwise, Tensor};

pub(super) fn parse(bytes: &[u8]) -> Result<Case, CaseError> {
    let file = File { tensors: SafeTensors::deserialize(bytes)? };
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let text = header.metadata().as_ref().and_then(|map| map.get("meta"));
    let meta = Meta::parse(text.ok_or_else(|| CaseError::Meta("missing key `meta`".to_owned()))?)?;
    match meta.kind {
        Kind::Attention => attention(&file, &meta),
        Kind::Append => append(&file, &meta),
        Kind::Merge => merge(&file, &meta),
        Kind::Stepwise => stepwise(&file, &meta),
    }
}

/// The tensors of a file, fetched by name with the type and shape that the caller needs.
struct File<'a> {
    tensors: SafeTensors<'a>,
}

impl<'a> File<'a> {
    fn find(&self, name: &str) -> Option<TensorView<'a>> {
        self.tensors.tensor(name).ok()
    }

    fn view(&self, name: &'static str) -> Result<TensorView<'a>, CaseError> {
        self.find(name).ok_or(CaseError::Missing { name })
    }

    /// A tensor of one of our element types.
    fn tensor<const N: usize>(
        &self,
        name: &'static str,
        dtype: Dtype,
    ) -> Result<Tensor, CaseError> {
        let view = self.typed(name, stored(dtype))?;
        if view.shape().len() != N || view.shape().contains(&0) {
            return Err(shape(name, &view, format!("{N} dimensions, none of them 0")));
        }
        Ok(Tensor { dtype, shape: view.shape().to_vec(), bytes: view.data().to_vec() })
    }

    fn typed(
        &self,
        name: &'static str,
        dtype: safetensors::Dtype,
    ) -> Result<TensorView<'a>, CaseError> {
        let view = self.view(name)?;
        if view.dtype() != dtype {
            let (got, expected) = (view.dtype().to_string(), dtype.to_string());
            return Err(CaseError::Type { name, got, expected });
        }
        Ok(view)
    }

    /// The elements of a tensor whose shape is known.
    fn numbers<T, const BYTES: usize>(
        &self,
        name: &'static str,
        dtype: safetensors::Dtype,
        expected: &[usize],
        read: impl Fn([u8; BYTES]) -> T,
    ) -> Result<Vec<T>, CaseError> {
        let view = self.typed(name, dtype)?;
        if view.shape() != expected {
            return Err(shape(name, &view, format!("{expected:?}")));
        }
        let (elements, _) = view.data().as_chunks::<BYTES>();
        Ok(elements.iter().map(|bytes| read(*bytes)).collect())
    }

    fn i32s(&self, name: &'static str, expected: &[usize]) -> Result<Vec<i32>, CaseError> {
        self.numbers(name, safetensors::Dtype::I32, expected, i32::from_le_bytes)
    }

    fn i64s(&self, name: &'static str, expected: &[usize]) -> Result<Vec<i64>, CaseError> {
        self.numbers(name, safetensors::Dtype::I64, expected, i64::from_le_bytes)
    }

    fn f32s(&self, name: &'static str, expected: &[usize]) -> Result<Vec<f32>, CaseError> {
        self.numbers(name, safetensors::Dtype::F32, expected, f32::from_le_bytes)
    }

    fn f64s(&self, name: &'static str, expected: &[usize]) -> Result<Vec<f64>, CaseError> {
        self.numbers(name, safetensors::Dtype::F64, expected, f64::from_le_bytes)
    }

    /// An optional [heads] tensor.
    fn per_head(&self, name: &'static str, heads: usize) -> Result<Option<Vec<f32>>, CaseError> {
        self.find(name).map(|_| self.f32s(name, &[heads])).transpose()
    }

    fn scale(&self, name: &'static str, seqs: usize, heads: usize) -> Result<Scale, CaseError> {
        let Some(view) = self.find(name) else {
            return Ok(Scale::None);
        };
        match *view.shape() {
            [] => Ok(Scale::Scalar(self.f32s(name, &[])?[0])),
            [_] => Ok(Scale::PerHead(self.f32s(name, &[heads])?)),
            _ => Ok(Scale::PerSeqAndHead(self.f32s(name, &[seqs, heads])?)),
        }
    }

    /// Expected outputs whose rows have the shape `rows`.
    fn recorded(
        &self,
        meta: &Meta,
        rows: &[usize],
        head_dim: usize,
    ) -> Result<Recorded, CaseError> {
        let with_dim = [rows, &[head_dim]].concat();
        let lse_sink = self.find("lse_sink").map(|_| self.f64s("lse_sink", rows)).transpose()?;
        Ok(Recorded {
            out: self.f64s("out", &with_dim)?,
            lse: self.f64s("lse", rows)?,
            lse_sink,
            tolerance: meta.tolerance()?,
        })
    }
}

fn stored(dtype: Dtype) -> safetensors::Dtype {
    match dtype {
        Dtype::F32 => safetensors::Dtype::F32,
        Dtype::F16 => safetensors::Dtype::F16,
        Dtype::Bf16 => safetensors::Dtype::BF16,
        Dtype::E4m3 => safetensors::Dtype::F8_E4M3,
        Dtype::E5m2 => safetensors::Dtype::F8_E5M2,
        Dtype::I8 => safetensors::Dtype::I8,
    }
}

fn shape(name: &'static str, view: &TensorView, expected: String) -> CaseError {
    CaseError::Shape { name, got: view.shape().to_vec(), expected }
}

/// Compares the shape of a tensor with the one that other tensors ask for.
fn expect_shape(name: &'static str, tensor: &Tensor, expected: &[usize]) -> Result<(), CaseError> {
    if tensor.shape == expected {
        return Ok(());
    }
    Err(CaseError::Shape { name, got: tensor.shape.clone(), expected: format!("{expected:?}") })
}

/// The K and V caches `k_name` and `v_name`: one shape, one type.
fn caches(
    file: &File,
    [k_name, v_name]: [&'static str; 2],
    dtype: Dtype,
) -> Result<(Tensor, Tensor), CaseError> {
    let k_cache = file.tensor::<4>(k_name, dtype)?;
    let v_cache = file.tensor::<4>(v_name, dtype)?;
    expect_shape(v_name, &v_cache, &k_cache.shape)?;
    Ok((k_cache, v_cache))
}

fn attention(file: &File, meta: &Meta) -> Result<Case, CaseError> {
    let q = file.tensor::<3>("q", need("q_dtype", meta.q_dtype)?)?;
    let (k_cache, v_cache) =
        caches(file, ["k_cache", "v_cache"], need("kv_dtype", meta.kv_dtype)?)?;
    check_heads(&q, &k_cache)?;
    let table = file.view("block_table")?;
    let &[num_seqs, max_blocks_per_seq] = table.shape() else {
        return Err(shape("block_table", &table, "2 dimensions".to_owned()));
    };
    let block_table = file.i32s("block_table", &[num_seqs, max_blocks_per_seq])?;
    let seq_lens = lengths("kv_lens", &file.i32s("kv_lens", &[num_seqs])?)?;
    let query_start_loc = lengths("cu_q", &file.i32s("cu_q", &[num_seqs + 1])?)?;
    let (total_q, num_q_heads, num_kv_heads) = (q.shape[0], q.shape[1], k_cache.shape[2]);
    let problem = Attention {
        mask: mask(file, meta, num_q_heads)?,
        k_scale: file.scale("k_scale", num_seqs, num_kv_heads)?,
        v_scale: file.scale("v_scale", num_seqs, num_kv_heads)?,
        sm_scale: need("scale", meta.scale)?,
        q,
        k_cache,
        v_cache,
        block_table,
        max_blocks_per_seq,
        seq_lens,
        query_start_loc,
    };
    check_rows(&problem.query_start_loc, total_q)?;
    check_table(&problem)?;
    let (rows, head_dim) = ([total_q, num_q_heads], problem.head_dim());
    let expected = file.recorded(meta, &rows, head_dim)?;
    let parts = meta.split.map(|split| parts(file, split, rows, head_dim)).transpose()?;
    Ok(Case::Attention { problem, expected, parts })
}

fn parts(
    file: &File,
    split: usize,
    [total_q, heads]: [usize; 2],
    head_dim: usize,
) -> Result<Parts, CaseError> {
    let count = file.view("part_lse")?.shape().first().copied().unwrap_or(0);
    Ok(Parts {
        split,
        out: file.f64s("part_out", &[count, total_q, heads, head_dim])?,
        lse: file.f64s("part_lse", &[count, total_q, heads])?,
    })
}

fn append(file: &File, meta: &Meta) -> Result<Case, CaseError> {
    let (dtype, kv_dtype) = (need("dtype", meta.dtype)?, need("kv_dtype", meta.kv_dtype)?);
    let k_new = file.tensor::<3>("k_new", dtype)?;
    let v_new = file.tensor::<3>("v_new", dtype)?;
    expect_shape("v_new", &v_new, &k_new.shape)?;
    let (k_cache, v_cache) = caches(file, ["k_cache_before", "v_cache_before"], kv_dtype)?;
    let (k_after, v_after) = caches(file, ["k_cache_after", "v_cache_after"], kv_dtype)?;
    expect_shape("k_cache_after", &k_after, &k_cache.shape)?;
    let (tokens, heads) = (k_new.shape[0], k_new.shape[1]);
    expect_shape("k_new", &k_new, &[tokens, k_cache.shape[2], k_cache.shape[3]])?;
    let slot_mapping = file.i64s("slot_mapping", &[tokens])?;
    check_slots(&slot_mapping, k_cache.shape[0] * k_cache.shape[1])?;
    let k_scale = file.scale("k_scale", 1, heads)?;
    let v_scale = file.scale("v_scale", 1, heads)?;
    let problem = Append { k_new, v_new, k_cache, v_cache, slot_mapping, k_scale, v_scale };
    Ok(Case::Append { problem, k_after, v_after })
}

fn merge(file: &File, meta: &Meta) -> Result<Case, CaseError> {
    let outs = file.tensor::<4>("outs", Dtype::F32)?;
    let lses = file.f32s("lses", &outs.shape[..3])?;
    let sinks = file.per_head("sinks", outs.shape[2])?;
    let expected = file.recorded(meta, &outs.shape[1..3], outs.shape[3])?;
    Ok(Case::Merge { problem: Merge { outs, lses, sinks }, expected })
}

fn stepwise(file: &File, meta: &Meta) -> Result<Case, CaseError> {
    let (dtype, kv_dtype) = (need("q_dtype", meta.q_dtype)?, need("kv_dtype", meta.kv_dtype)?);
    let q = file.tensor::<3>("q_all", dtype)?;
    let k = file.tensor::<3>("k_all", dtype)?;
    let v = file.tensor::<3>("v_all", dtype)?;
    let (k_after, v_after) = caches(file, ["k_cache_final", "v_cache_final"], kv_dtype)?;
    check_heads(&q, &k_after)?;
    let (tokens, num_q_heads, head_dim) = (q.shape[0], q.shape[1], q.shape[2]);
    expect_shape("k_all", &k, &[tokens, k_after.shape[2], head_dim])?;
    expect_shape("v_all", &v, &k.shape)?;
    let table = file.view("block_table")?;
    let &[1, max_blocks] = table.shape() else {
        return Err(shape("block_table", &table, "[1, max_blocks]".to_owned()));
    };
    let slot_mapping = file.i64s("slot_mapping", &[tokens])?;
    check_slots(&slot_mapping, k_after.shape[0] * k_after.shape[1])?;
    let mut mask = mask(file, meta, num_q_heads)?;
    mask.causal = true;
    let problem = Stepwise {
        k_cache: poisoned(&k_after, &slot_mapping),
        v_cache: poisoned(&v_after, &slot_mapping),
        block_table: file.i32s("block_table", &[1, max_blocks])?,
        sm_scale: need("scale", meta.scale)?,
        mask,
        q,
        k,
        v,
        slot_mapping,
    };
    check_table(&problem.attention(0..tokens, k_after.clone(), v_after.clone()))?;
    let expected = file.recorded(meta, &[tokens, num_q_heads], head_dim)?;
    Ok(Case::Stepwise { problem, expected, k_after, v_after })
}

/// A final cache before the steps: the slots that they write hold NaN, the others what they end with.
fn poisoned(after: &Tensor, slot_mapping: &[i64]) -> Tensor {
    let mut cache = after.clone();
    let slot_elements = after.shape[2] * after.shape[3];
    for slot in slot_mapping.iter().filter_map(|&slot| usize::try_from(slot).ok()) {
        for index in slot * slot_elements..(slot + 1) * slot_elements {
            cache.set(index, after.dtype.poison());
        }
    }
    cache
}

fn mask(file: &File, meta: &Meta, num_q_heads: usize) -> Result<Mask, CaseError> {
    Ok(Mask {
        causal: meta.causal.unwrap_or(false),
        window: meta.window,
        soft_cap: meta.softcap,
        alibi: file.per_head("alibi", num_q_heads)?,
        sinks: file.per_head("sinks", num_q_heads)?,
    })
}

fn check_heads(q: &Tensor, k_cache: &Tensor) -> Result<(), CaseError> {
    let (num_q_heads, num_kv_heads) = (q.shape[1], k_cache.shape[2]);
    if !num_q_heads.is_multiple_of(num_kv_heads) || q.shape[2] != k_cache.shape[3] {
        let expected = format!("[rows, a multiple of {num_kv_heads}, {}]", k_cache.shape[3]);
        return Err(CaseError::Shape { name: "q", got: q.shape.clone(), expected });
    }
    Ok(())
}

fn lengths(name: &'static str, values: &[i32]) -> Result<Vec<usize>, CaseError> {
    let length = |(index, &value): (usize, &i32)| {
        usize::try_from(value).map_err(|_| CaseError::Value {
            name,
            index,
            value: i64::from(value),
            expected: "at least 0 is needed".to_owned(),
        })
    };
    values.iter().enumerate().map(length).collect()
}

/// Prefix sums start at 0, never fall, and end at the number of rows.
fn check_rows(query_start_loc: &[usize], total_q: usize) -> Result<(), CaseError> {
    let last = query_start_loc.len() - 1;
    for (index, &value) in query_start_loc.iter().enumerate() {
        let low = if index == 0 { 0 } else { query_start_loc[index - 1] };
        let fixed =
            [(0, 0), (last, total_q)].iter().any(|&(at, must)| at == index && value != must);
        if fixed || value < low || value > total_q {
            let expected = format!("prefix sums from 0 to {total_q} are needed");
            return Err(CaseError::Value { name: "cu_q", index, value: value as i64, expected });
        }
    }
    Ok(())
}

/// Every block that a live token needs is named by the table and lies in the pool.
fn check_table(problem: &Attention) -> Result<(), CaseError> {
    let capacity = problem.max_blocks_per_seq * problem.block_size();
    for (seq, &len) in problem.seq_lens.iter().enumerate() {
        if len > capacity {
            let expected = format!("at most {capacity} tokens fit into a row of the block table");
            return Err(CaseError::Value {
                name: "kv_lens",
                index: seq,
                value: len as i64,
                expected,
            });
        }
        for block in 0..len.div_ceil(problem.block_size()) {
            let index = seq * problem.max_blocks_per_seq + block;
            let entry = problem.block_table[index];
            if !usize::try_from(entry).is_ok_and(|id| id < problem.num_blocks()) {
                let expected = format!("the pool has {} blocks", problem.num_blocks());
                return Err(CaseError::Value {
                    name: "block_table",
                    index,
                    value: i64::from(entry),
                    expected,
                });
            }
        }
    }
    Ok(())
}

fn check_slots(slot_mapping: &[i64], num_slots: usize) -> Result<(), CaseError> {
    match slot_mapping.iter().position(|&slot| slot >= 0 && slot as usize >= num_slots) {
        None => Ok(()),
        Some(index) => Err(CaseError::Value {
            name: "slot_mapping",
            index,
            value: slot_mapping[index],
            expected: format!("the pool has {num_slots} slots"),
        }),
    }
}
