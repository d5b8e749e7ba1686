//! A walk over a GGUF header that allocates nothing and believes nothing.
//!
//! candle's reader trusts a header further than a file from anywhere deserves: an alignment of
//! zero divides by zero, a product of dimensions may wrap, arrays become vectors of 32-byte
//! values. So the header is walked first; what passes here is safe to hand on.
//! Layout: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::io::{Read, Seek, SeekFrom};

use anyhow::{Context, Result, bail, ensure};

/// Elements of one metadata array; the largest known vocabularies have about 2^18 tokens.
const MAX_ARRAY: u64 = 1 << 22;
/// Bytes of a key, a tensor name or an array's string.
const MAX_NAME: u64 = 1 << 16;
/// Arrays within arrays; real files have none.
const MAX_NESTING: u32 = 2;
/// Elements of one tensor: 2^40 f32 values are 4 TiB.
const MAX_ELEMENTS: u64 = 1 << 40;
/// ggml type ids that can be dequantised here: f32, f16, q4_0, q4_1, q5_0, q5_1, q8_0, q2_K to
/// q6_K, bf16.
const TENSOR_TYPES: [u32; 13] = [0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 30];

const TYPE_STRING: u32 = 8;
const TYPE_ARRAY: u32 = 9;

/// Checks that the file is a GGUF of version 1 to 3 whose header lies wholly within it.
pub fn check(reader: &mut (impl Read + Seek)) -> Result<()> {
    let len = reader.seek(SeekFrom::End(0))?;
    reader.seek(SeekFrom::Start(0))?;
    let mut walk = Walk { reader, pos: 0, len, wide: true };

    let magic: [u8; 4] = walk.bytes("the magic")?;
    ensure!(&magic == b"GGUF", "not a GGUF file: it starts with {magic:02x?}, want \"GGUF\"");
    let version = walk.u32("the version")?;
    ensure!(
        version.swap_bytes() > 3 || version == 0,
        "the file is big-endian GGUF version {}, only little-endian files are read",
        version.swap_bytes()
    );
    ensure!((1..=3).contains(&version), "GGUF version {version} is not supported, want 1 to 3");
    walk.wide = version > 1;

    let tensors = walk.length("the tensor count")?;
    let entries = walk.length("the metadata count")?;
    for i in 0..entries {
        let key = walk.name(&format!("metadata key {i} of {entries}"))?;
        let kind = walk.u32(&key)?;
        if key == "general.alignment" {
            let alignment = walk.alignment(kind)?;
            ensure!(
                alignment.is_power_of_two() && alignment <= 1 << 16,
                "general.alignment is {alignment}, want a power of two up to 65536"
            );
        } else {
            walk.skip_value(kind, 0, &key)?;
        }
    }
    for i in 0..tensors {
        walk.tensor(&format!("tensor {i} of {tensors}"))?;
    }
    Ok(())
}

struct Walk<'a, R> {
    reader: &'a mut R,
    pos: u64,
    len: u64,
    /// Counts and lengths have 64 bits; 32 in version 1.
    wide: bool,
}

impl<R: Read + Seek> Walk<'_, R> {
    fn advance(&mut self, bytes: u64, what: &str) -> Result<()> {
        let end = self.pos.checked_add(bytes).filter(|&end| end <= self.len);
        self.pos = end.with_context(|| {
            format!(
                "the file ends early: {what} needs {bytes} bytes at offset {}, the file has {}",
                self.pos, self.len
            )
        })?;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        self.advance(N as u64, what)?;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).with_context(|| format!("cannot read {what}"))?;
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes(what)?))
    }

    /// A count or length: 64 bits, or 32 in version 1.
    fn length(&mut self, what: &str) -> Result<u64> {
        if self.wide { self.u64(what) } else { Ok(self.u32(what)?.into()) }
    }

    fn skip(&mut self, bytes: u64, what: &str) -> Result<()> {
        self.advance(bytes, what)?;
        self.reader.seek_relative(i64::try_from(bytes)?)?;
        Ok(())
    }

    fn name(&mut self, what: &str) -> Result<String> {
        let len = self.length(what)?;
        ensure!(len <= MAX_NAME, "{what} has {len} bytes, the limit is {MAX_NAME}");
        self.advance(len, what)?;
        let mut bytes = Vec::new();
        self.reader.by_ref().take(len).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The value of `general.alignment`: an integer of any type that candle accepts there.
    fn alignment(&mut self, kind: u32) -> Result<u64> {
        Ok(match kind {
            0 => u64::from(u8::from_le_bytes(self.bytes("general.alignment")?)),
            2 => u64::from(u16::from_le_bytes(self.bytes("general.alignment")?)),
            4 | 5 => u64::from(self.u32("general.alignment")?),
            _ => bail!("general.alignment has value type {kind}, want an unsigned integer"),
        })
    }

    fn skip_value(&mut self, kind: u32, nesting: u32, key: &str) -> Result<()> {
        match kind {
            TYPE_STRING => {
                let len = self.length(key)?;
                self.skip(len, key)
            }
            TYPE_ARRAY => {
                ensure!(nesting < MAX_NESTING, "{key} nests arrays deeper than {MAX_NESTING}");
                let kind = self.u32(key)?;
                let count = self.length(key)?;
                ensure!(count <= MAX_ARRAY, "{key} has {count} elements, the limit is {MAX_ARRAY}");
                if let Some(size) = scalar_size(kind) {
                    return self.skip(count * size, key);
                }
                (0..count).try_for_each(|_| self.skip_value(kind, nesting + 1, key))
            }
            _ => {
                let size = scalar_size(kind)
                    .with_context(|| format!("{key} has the unknown value type {kind}"))?;
                self.skip(size, key)
            }
        }
    }

    fn tensor(&mut self, what: &str) -> Result<()> {
        let name = self.name(what)?;
        let rank = self.u32(&name)?;
        ensure!((1..=4).contains(&rank), "tensor {name} has {rank} dimensions, want 1 to 4");
        let mut elements = 1u64;
        for _ in 0..rank {
            let dim = self.length(&name)?;
            ensure!(dim > 0, "tensor {name} has a dimension of 0");
            elements = elements
                .checked_mul(dim)
                .filter(|&elements| elements <= MAX_ELEMENTS)
                .with_context(|| format!("tensor {name} has more than {MAX_ELEMENTS} elements"))?;
        }
        let kind = self.u32(&name)?;
        ensure!(
            TENSOR_TYPES.contains(&kind),
            "tensor {name} has ggml type {kind}, which is not supported"
        );
        self.u64(&name)?;
        Ok(())
    }
}

/// Bytes of a value of fixed size: u8 i8 u16 i16 u32 i32 f32 bool (0 to 7), u64 i64 f64.
fn scalar_size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}
