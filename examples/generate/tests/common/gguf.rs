//! A writer of GGUF files, versions 1 to 3.

use std::collections::BTreeMap;

use half::f16;

/// A metadata value.
#[derive(Clone, Debug)]
pub enum Value {
    U32(u32),
    F32(f32),
    Str(String),
    Strs(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
}

/// A tensor's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    F32,
    F16,
    Q4_1,
    Q8_0,
}

impl Kind {
    /// Elements that are stored together.
    pub fn block(self) -> usize {
        match self {
            Kind::F32 | Kind::F16 => 1,
            Kind::Q4_1 | Kind::Q8_0 => 32,
        }
    }

    fn id(self) -> u32 {
        match self {
            Kind::F32 => 0,
            Kind::F16 => 1,
            Kind::Q4_1 => 3,
            Kind::Q8_0 => 8,
        }
    }

    /// The bytes of a block and the values that they stand for.
    fn encode(self, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
        let (min, max) =
            values.iter().fold((f32::MAX, f32::MIN), |(a, b), &x| (a.min(x), b.max(x)));
        let half = |x: f32| f16::from_f32(x);
        match self {
            Kind::F32 => (values[0].to_le_bytes().to_vec(), values.to_vec()),
            Kind::F16 => (half(values[0]).to_le_bytes().to_vec(), vec![half(values[0]).to_f32()]),
            Kind::Q8_0 => {
                let scale = half(max.max(-min) / 127.0);
                let codes = values.iter().map(|x| (x / scale.to_f32()).round() as i8);
                let codes: Vec<i8> = codes.collect();
                let stored = codes.iter().map(|&code| f32::from(code) * scale.to_f32()).collect();
                let mut bytes = scale.to_le_bytes().to_vec();
                bytes.extend(codes.iter().map(|code| code.to_le_bytes()[0]));
                (bytes, stored)
            }
            Kind::Q4_1 => {
                let (scale, base) = (half((max - min) / 15.0), half(min));
                let code =
                    |x: &f32| ((x - base.to_f32()) / scale.to_f32()).round().clamp(0.0, 15.0);
                let codes: Vec<f32> = values.iter().map(code).collect();
                let stored =
                    codes.iter().map(|code| code * scale.to_f32() + base.to_f32()).collect();
                let mut bytes = scale.to_le_bytes().to_vec();
                bytes.extend(base.to_le_bytes());
                let (low, high) = codes.split_at(16);
                bytes.extend(
                    low.iter().zip(high).map(|(&low, &high)| low as u8 | (high as u8) << 4),
                );
                (bytes, stored)
            }
        }
    }
}

#[derive(Clone)]
struct Tensor {
    name: String,
    /// Outermost dimension first.
    shape: Vec<usize>,
    kind: u32,
    bytes: Vec<u8>,
}

/// A file to be written.
#[derive(Clone, Default)]
pub struct File {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
    /// What each tensor holds, as f32.
    pub weights: BTreeMap<String, Vec<f32>>,
}

impl File {
    /// Sets a metadata entry.
    pub fn set(&mut self, key: &str, value: Value) {
        self.remove(key);
        self.metadata.push((key.to_owned(), value));
    }

    /// Drops a metadata entry.
    pub fn remove(&mut self, key: &str) {
        self.metadata.retain(|(known, _)| known != key);
    }

    /// Adds a tensor, or replaces it.
    pub fn tensor(&mut self, name: &str, shape: &[usize], kind: Kind, values: &[f32]) {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        self.drop_tensor(name);
        let (mut bytes, mut stored) = (Vec::new(), Vec::new());
        for block in values.chunks(kind.block()) {
            let (block_bytes, block_values) = kind.encode(block);
            bytes.extend(block_bytes);
            stored.extend(block_values);
        }
        self.weights.insert(name.to_owned(), stored);
        let (name, shape) = (name.to_owned(), shape.to_vec());
        self.tensors.push(Tensor { name, shape, kind: kind.id(), bytes });
    }

    /// Drops a tensor.
    pub fn drop_tensor(&mut self, name: &str) {
        self.tensors.retain(|tensor| tensor.name != name);
        self.weights.remove(name);
    }

    /// Gives a tensor another type id or shape than it has.
    pub fn disguise(&mut self, name: &str, kind: Option<u32>, shape: Option<Vec<usize>>) {
        let tensor = self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap();
        tensor.kind = kind.unwrap_or(tensor.kind);
        tensor.shape = shape.unwrap_or_else(|| tensor.shape.clone());
    }

    /// The file's bytes, and where its header ends.
    pub fn bytes(&self, version: u32) -> (Vec<u8>, usize) {
        let mut out = Writer { bytes: b"GGUF".to_vec(), wide: version > 1 };
        out.u32(version);
        out.length(self.tensors.len());
        out.length(self.metadata.len());
        for (key, value) in &self.metadata {
            out.string(key);
            out.value(value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            out.string(&tensor.name);
            out.u32(u32::try_from(tensor.shape.len()).unwrap());
            tensor.shape.iter().rev().for_each(|&dim| out.length(dim));
            out.u32(tensor.kind);
            out.bytes.extend((data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        let header = out.bytes.len();
        out.bytes.resize(header.next_multiple_of(32), 0);
        out.bytes.extend(data);
        (out.bytes, header)
    }
}

struct Writer {
    bytes: Vec<u8>,
    wide: bool,
}

impl Writer {
    fn u32(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }

    fn length(&mut self, value: usize) {
        if self.wide {
            self.bytes.extend((value as u64).to_le_bytes());
        } else {
            self.u32(u32::try_from(value).unwrap());
        }
    }

    fn string(&mut self, text: &str) {
        self.length(text.len());
        self.bytes.extend(text.as_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::U32(x) => {
                self.u32(4);
                self.u32(*x);
            }
            Value::F32(x) => {
                self.u32(6);
                self.bytes.extend(x.to_le_bytes());
            }
            Value::Str(text) => {
                self.u32(8);
                self.string(text);
            }
            Value::Strs(texts) => {
                self.array(8, texts.len());
                texts.iter().for_each(|text| self.string(text));
            }
            Value::F32s(values) => {
                self.array(6, values.len());
                values.iter().for_each(|x| self.bytes.extend(x.to_le_bytes()));
            }
            Value::I32s(values) => {
                self.array(5, values.len());
                values.iter().for_each(|x| self.bytes.extend(x.to_le_bytes()));
            }
        }
    }

    fn array(&mut self, kind: u32, len: usize) {
        self.u32(9);
        self.u32(kind);
        self.length(len);
    }
}
