//! The launch description: what the JSON file may say, and every way in which it can be wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use ptx_emulator::{Checks, MmaMode};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de};

use super::Unusable;

/// A launch as the file describes it. Paths are relative to the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LaunchSpec {
    pub(super) ptx: PathBuf,
    pub(super) entry: String,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    #[serde(default)]
    pub(super) dynamic_shared_bytes: u32,
    /// `sm_80`; the module's own `.target` if absent.
    pub(super) target: Option<String>,
    #[serde(default)]
    pub(super) seed: u64,
    #[serde(default)]
    mma: MmaName,
    pub(super) checks: Option<ChecksSpec>,
    /// Instructions that a warp may execute.
    pub(super) step_limit: Option<u64>,
    /// Instructions that all warps may execute together.
    pub(super) total_limit: Option<u64>,
    /// Threads of the host; all cores if absent. The result does not depend on it.
    #[serde(default)]
    pub(super) threads: usize,
    #[serde(default)]
    pub(super) buffers: Named<BufferSpec>,
    #[serde(default)]
    pub(super) params: Vec<ParamSpec>,
    /// Buffers of which every byte has to be written.
    #[serde(default)]
    pub(super) required: Vec<String>,
    #[serde(default)]
    pub(super) save: Named<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum MmaName {
    #[default]
    Fast,
    BitAccurate,
}

/// `"all"`, `"none"`, names joined by commas, or a list of names.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "`checks` must be a string or a list of strings")]
pub(super) enum ChecksSpec {
    Text(String),
    List(Vec<String>),
}

/// What a buffer holds before the launch: exactly one of the three.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BufferSpec {
    file: Option<PathBuf>,
    zeros: Option<u64>,
    uninit: Option<u64>,
}

/// The contents of a buffer.
pub(super) enum Contents<'s> {
    File(&'s PathBuf),
    Zeros(u64),
    Uninit(u64),
}

/// A parameter: exactly one of the kinds, `offset` with `buffer` only, `pointers` with `bytes` only.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParamSpec {
    buffer: Option<String>,
    offset: Option<u64>,
    u8: Option<u8>,
    s8: Option<i8>,
    u16: Option<u16>,
    s16: Option<i16>,
    u32: Option<u32>,
    s32: Option<i32>,
    u64: Option<u64>,
    s64: Option<i64>,
    f32: Option<f64>,
    f64: Option<f64>,
    bytes: Option<String>,
    pointers: Option<Vec<PointerSpec>>,
}

/// A device pointer inside of a by-value struct.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PointerSpec {
    pub(super) at: usize,
    pub(super) buffer: String,
    #[serde(default)]
    pub(super) offset: u64,
}

/// The value of a parameter.
#[derive(Debug, PartialEq)]
pub(super) enum Value {
    Pointer { buffer: String, offset: u64 },
    Bytes(Vec<u8>),
}

impl LaunchSpec {
    /// Reads a description from JSON text.
    pub(super) fn parse(text: &str) -> Result<LaunchSpec, Unusable> {
        serde_json::from_str(text).map_err(|e| Unusable::new(one_line(&e.to_string())))
    }

    /// The architecture to run as, if the file names one.
    pub(super) fn sm(&self) -> Result<Option<u32>, Unusable> {
        let Some(target) = &self.target else { return Ok(None) };
        let number =
            target.strip_prefix("sm_").and_then(|t| t.trim_end_matches(['a', 'f']).parse().ok());
        match number {
            Some(sm) if (50..=130).contains(&sm) => Ok(Some(sm)),
            _ => Err(Unusable::new(format!("target `{target}` is not of the form sm_80"))),
        }
    }

    /// How matrix products are added up.
    pub(super) fn mma(&self) -> MmaMode {
        match self.mma {
            MmaName::Fast => MmaMode::Fast,
            MmaName::BitAccurate => MmaMode::BitAccurate,
        }
    }

    /// Which checks to make: all, unless the file chooses.
    pub(super) fn checks(&self) -> Result<Checks, Unusable> {
        let text = match &self.checks {
            None => return Ok(Checks::ALL),
            Some(ChecksSpec::Text(text)) => text.clone(),
            Some(ChecksSpec::List(names)) if names.is_empty() => return Ok(Checks::NONE),
            Some(ChecksSpec::List(names)) => names.join(","),
        };
        Checks::parse(&text)
            .map_err(|name| Unusable::new(format!("checks: there is no check `{name}`")))
    }
}

impl BufferSpec {
    pub(super) fn contents(&self, name: &str) -> Result<Contents<'_>, Unusable> {
        match (&self.file, self.zeros, self.uninit) {
            (Some(path), None, None) => Ok(Contents::File(path)),
            (None, Some(bytes), None) => Ok(Contents::Zeros(bytes)),
            (None, None, Some(bytes)) => Ok(Contents::Uninit(bytes)),
            _ => Err(Unusable::new(format!(
                "buffer `{name}` needs exactly one of `file`, `zeros` and `uninit`"
            ))),
        }
    }
}

impl ParamSpec {
    /// The value, and where pointers are to be put into it. `index` is for messages.
    pub(super) fn value(&self, index: usize) -> Result<(Value, &[PointerSpec]), Unusable> {
        let fault = |what: String| Unusable::new(format!("parameter {index}: {what}"));
        let mut values = Vec::new();
        if let Some(buffer) = &self.buffer {
            values
                .push(Value::Pointer { buffer: buffer.clone(), offset: self.offset.unwrap_or(0) });
        }
        let numbers = [
            self.u8.map(|v| v.to_le_bytes().to_vec()),
            self.s8.map(|v| v.to_le_bytes().to_vec()),
            self.u16.map(|v| v.to_le_bytes().to_vec()),
            self.s16.map(|v| v.to_le_bytes().to_vec()),
            self.u32.map(|v| v.to_le_bytes().to_vec()),
            self.s32.map(|v| v.to_le_bytes().to_vec()),
            self.u64.map(|v| v.to_le_bytes().to_vec()),
            self.s64.map(|v| v.to_le_bytes().to_vec()),
            self.f64.map(|v| v.to_le_bytes().to_vec()),
        ];
        values.extend(numbers.into_iter().flatten().map(Value::Bytes));
        if let Some(v) = self.f32 {
            let narrow = v as f32;
            if narrow.is_infinite() {
                return Err(fault(format!(
                    "{v:e} does not fit an f32, whose largest value is {:e}",
                    f32::MAX
                )));
            }
            values.push(Value::Bytes(narrow.to_le_bytes().to_vec()));
        }
        if let Some(hex) = &self.bytes {
            values.push(Value::Bytes(decode_hex(hex).map_err(fault)?));
        }
        if self.offset.is_some() && self.buffer.is_none() {
            return Err(fault("`offset` belongs to `buffer`".into()));
        }
        if self.pointers.is_some() && self.bytes.is_none() {
            return Err(fault("`pointers` belongs to `bytes`".into()));
        }
        match (values.pop(), values.is_empty()) {
            (Some(value), true) => Ok((value, self.pointers.as_deref().unwrap_or(&[]))),
            _ => Err(fault(
                "exactly one of `buffer`, `u8`, `s8`, `u16`, `s16`, `u32`, `s32`, `u64`, `s64`, `f32`, `f64` and `bytes` is needed".into(),
            )),
        }
    }
}

/// Bytes from hexadecimal digits; white space may stand between bytes.
fn decode_hex(text: &str) -> Result<Vec<u8>, String> {
    let mut digits = Vec::with_capacity(text.len());
    for (at, c) in text.char_indices().filter(|(_, c)| !c.is_ascii_whitespace()) {
        let digit = c
            .to_digit(16)
            .ok_or_else(|| format!("`{}` at {at} is not a hexadecimal digit", c.escape_debug()))?;
        digits.push(digit as u8);
    }
    if digits.len() % 2 != 0 {
        return Err(format!("{} hexadecimal digits are not whole bytes", digits.len()));
    }
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// A message without its line breaks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A JSON object whose keys are names, each of them once.
#[derive(Debug)]
pub(super) struct Named<T>(pub(super) BTreeMap<String, T>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(BTreeMap::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NamedVisitor(std::marker::PhantomData))
    }
}

struct NamedVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
    type Value = Named<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
        let mut named = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, T>()? {
            if named.contains_key(&name) {
                return Err(de::Error::custom(format!("`{name}` is given twice")));
            }
            named.insert(name, value);
        }
        Ok(Named(named))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Result<Value, String> {
        let spec: ParamSpec = serde_json::from_str(json).map_err(|e| e.to_string())?;
        spec.value(3).map(|(value, _)| value).map_err(|e| e.to_string())
    }

    #[test]
    fn numbers_take_their_own_width() {
        let bytes = |b: &[u8]| Ok(Value::Bytes(b.to_vec()));
        assert_eq!(value(r#"{"u32": 7}"#), bytes(&[7, 0, 0, 0]));
        assert_eq!(value(r#"{"s32": -1}"#), bytes(&[255; 4]));
        assert_eq!(value(r#"{"u64": 18446744073709551615}"#), bytes(&[255; 8]));
        assert_eq!(value(r#"{"f32": 0.125}"#), bytes(&[0, 0, 0, 0x3e]));
        assert_eq!(value(r#"{"f32": 1}"#), bytes(&[0, 0, 0x80, 0x3f]));
        assert_eq!(value(r#"{"s8": -128}"#), bytes(&[0x80]));
        assert_eq!(value(r#"{"bytes": "00 ff\n1E"}"#), bytes(&[0, 255, 0x1e]));
        assert_eq!(value(r#"{"bytes": ""}"#), bytes(&[]));
    }

    #[test]
    fn a_parameter_is_one_thing() {
        for json in [r"{}", r#"{"u32": 1, "s32": 1}"#, r#"{"buffer": "q", "bytes": ""}"#] {
            let error = value(json).unwrap_err();
            assert!(error.starts_with("parameter 3: exactly one of"), "{error}");
        }
        assert_eq!(
            value(r#"{"u32": 1, "offset": 0}"#).unwrap_err(),
            "parameter 3: `offset` belongs to `buffer`"
        );
        assert_eq!(
            value(r#"{"u32": 1, "pointers": []}"#).unwrap_err(),
            "parameter 3: `pointers` belongs to `bytes`"
        );
    }

    #[test]
    fn hexadecimal_errors_say_where() {
        assert_eq!(decode_hex("0g").unwrap_err(), "`g` at 1 is not a hexadecimal digit");
        assert_eq!(decode_hex("001").unwrap_err(), "3 hexadecimal digits are not whole bytes");
        assert_eq!(decode_hex("0é").unwrap_err(), "`é` at 1 is not a hexadecimal digit");
    }
}
