//! A GGUF file: typed metadata, and tensors dequantised to f32.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{Device, Tensor};

use crate::header;

/// An open model file whose header has been checked.
pub struct Gguf {
    reader: BufReader<File>,
    content: Content,
    /// Tensors not taken yet.
    left: BTreeSet<String>,
}

impl Gguf {
    /// Opens the file and reads its header.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).context("cannot open the file")?;
        let mut reader = BufReader::new(file);
        header::check(&mut reader)?;
        std::io::Seek::rewind(&mut reader)?;
        let content = Content::read(&mut reader).map_err(one_line)?;
        let left = content.tensor_infos.keys().cloned().collect();
        Ok(Self { reader, content, left })
    }

    /// The file's metadata.
    pub fn metadata(&self) -> Metadata {
        Metadata(self.content.metadata.clone().into_iter().collect())
    }

    /// Whether the file has this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    /// Reads a tensor of exactly this shape (outermost dimension first) as f32.
    pub fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let info = self.content.tensor_infos.get(name).with_context(|| missing(name))?;
        let dims = info.shape.dims();
        ensure!(dims == shape, "tensor {name} has shape {dims:?}, want {shape:?}");
        let read = || -> candle_core::Result<Tensor> {
            let cpu = Device::Cpu;
            info.read(&mut self.reader, self.content.tensor_data_offset, &cpu)?.dequantize(&cpu)
        };
        let tensor = { read }().map_err(one_line).with_context(|| format!("tensor {name}"))?;
        self.left.remove(name);
        Ok(tensor)
    }

    /// Reads a vector as f32.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        Ok(self.tensor(name, &[len])?.to_vec1()?)
    }

    /// Reads a vector as f32 if the file has it.
    pub fn optional_vector(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        if self.has(name) { self.vector(name, len).map(Some) } else { Ok(None) }
    }

    /// Refuses a file with tensors that nobody took: its model does more than was computed.
    pub fn finish(self) -> Result<()> {
        // Tables of angles that early converters wrote; nothing but their owner's rope uses them.
        let harmless = |name: &str| name.ends_with("rot_embd") || name.ends_with("rope.freqs");
        match self.left.iter().find(|name| !harmless(name)) {
            Some(name) => bail!("tensor {name} is not part of a llama model known here"),
            None => Ok(()),
        }
    }
}

fn missing(name: &str) -> String {
    format!("tensor {name} is missing")
}

/// candle's errors may carry a backtrace below the first line.
fn one_line(error: candle_core::Error) -> anyhow::Error {
    let text = error.to_string();
    anyhow::anyhow!("{}", text.lines().next().unwrap_or("unknown error of the GGUF reader"))
}

/// Typed access to GGUF metadata: an absent key is `None`, a value of another type an error.
pub struct Metadata(pub(crate) BTreeMap<String, Value>);

impl Metadata {
    /// Metadata from its parts.
    #[cfg(test)]
    pub fn from_values(values: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        Self(values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    fn get<T>(
        &self,
        key: &str,
        want: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.0.get(key) else {
            return Ok(None);
        };
        let found = match value {
            Value::Array(_) => "an array".to_owned(),
            Value::String(text) => format!("the string {text:?}"),
            other => format!("{other:?}"),
        };
        read(value).map(Some).with_context(|| format!("metadata {key} is {found}, want {want}"))
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<Option<String>> {
        self.get(key, "a string", |value| match value {
            Value::String(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.get(key, "a boolean", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A count that fits 32 bits: any integer type, not negative.
    pub fn count(&self, key: &str) -> Result<Option<usize>> {
        let read = |value: &Value| usize::try_from(u32::try_from(integer(value)?).ok()?).ok();
        self.get(key, "one integer of 32 bits that is not negative", read)
    }

    /// A finite number.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.get(key, "a finite number", |value| float(value).filter(|x| x.is_finite()))
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.array(key, "an array of strings", |value| match value {
            Value::String(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// An array of numbers.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.array(key, "an array of numbers", float)
    }

    /// An array of integers.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.array(key, "an array of integers", integer)
    }

    fn array<T>(
        &self,
        key: &str,
        want: &str,
        element: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        self.get(key, want, |value| match value {
            Value::Array(values) => values.iter().map(&element).collect(),
            _ => None,
        })
    }
}

fn integer(value: &Value) -> Option<i64> {
    match *value {
        Value::U8(x) => Some(x.into()),
        Value::I8(x) => Some(x.into()),
        Value::U16(x) => Some(x.into()),
        Value::I16(x) => Some(x.into()),
        Value::U32(x) => Some(x.into()),
        Value::I32(x) => Some(x.into()),
        Value::U64(x) => i64::try_from(x).ok(),
        Value::I64(x) => Some(x),
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    match *value {
        Value::F32(x) => Some(x.into()),
        Value::F64(x) => Some(x),
        _ => None,
    }
}
