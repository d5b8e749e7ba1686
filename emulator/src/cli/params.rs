//! Parameters of the launch description, packed the way the entry declares them.

use std::collections::BTreeMap;

use super::Unusable;
use super::spec::{ParamSpec, Value};

/// A buffer on the device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub(super) address: u64,
    pub(super) bytes: u64,
}

/// A parameter as the entry declares it.
#[derive(Debug, Clone)]
pub(super) struct Declared<'m> {
    pub(super) name: &'m str,
    pub(super) offset: usize,
    pub(super) bytes: usize,
}

/// Packs the parameters; each must be as large as the one that the entry declares in its place.
pub(super) fn pack(
    specs: &[ParamSpec],
    declared: &[Declared<'_>],
    buffers: &BTreeMap<String, Placed>,
) -> Result<Vec<u8>, Unusable> {
    if specs.len() != declared.len() {
        let message =
            format!("{} parameters given, but the entry declares {}", specs.len(), declared.len());
        return Err(Unusable::new(message));
    }
    let mut packed = Vec::new();
    for (index, (spec, declared)) in specs.iter().zip(declared).enumerate() {
        let bytes = bytes(spec, index, buffers)?;
        if bytes.len() != declared.bytes {
            let message = format!(
                "parameter {index}: {} bytes given, but `{}` is declared with {}",
                bytes.len(),
                declared.name,
                declared.bytes
            );
            return Err(Unusable::new(message));
        }
        packed.resize(declared.offset, 0);
        packed.extend(bytes);
    }
    Ok(packed)
}

/// The bytes of one parameter, device addresses included.
fn bytes(
    spec: &ParamSpec,
    index: usize,
    buffers: &BTreeMap<String, Placed>,
) -> Result<Vec<u8>, Unusable> {
    let fault = |message: String| Unusable::new(format!("parameter {index}: {message}"));
    let (value, pointers) = spec.value(index)?;
    let mut bytes = match value {
        Value::Pointer { buffer, offset } => {
            address(buffers, &buffer, offset).map_err(fault)?.to_le_bytes().to_vec()
        }
        Value::Bytes(bytes) => bytes,
    };
    let mut patched: Vec<usize> = Vec::new();
    for pointer in pointers {
        let at = pointer.at;
        let address = address(buffers, &pointer.buffer, pointer.offset).map_err(fault)?;
        let len = bytes.len();
        let Some(place) = at.checked_add(8).and_then(|end| bytes.get_mut(at..end)) else {
            return Err(fault(format!("a pointer at {at} does not lie inside of {len} bytes")));
        };
        if let Some(other) = patched.iter().find(|other| other.abs_diff(at) < 8) {
            return Err(fault(format!("pointers at {other} and {at} overlap")));
        }
        place.copy_from_slice(&address.to_le_bytes());
        patched.push(at);
    }
    Ok(bytes)
}

/// The address `offset` bytes into a buffer; its end is allowed.
fn address(buffers: &BTreeMap<String, Placed>, name: &str, offset: u64) -> Result<u64, String> {
    let placed = buffers.get(name).ok_or_else(|| format!("there is no buffer `{name}`"))?;
    if offset > placed.bytes {
        return Err(format!(
            "offset {offset} lies beyond buffer `{name}` of {} bytes",
            placed.bytes
        ));
    }
    Ok(placed.address + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(json: &str, declared: &[(usize, usize)]) -> Result<Vec<u8>, String> {
        let specs: Vec<ParamSpec> = serde_json::from_str(json).expect("json");
        let declared: Vec<Declared<'_>> =
            declared.iter().map(|&(offset, bytes)| Declared { name: "p", offset, bytes }).collect();
        let buffers = BTreeMap::from([("q".to_owned(), Placed { address: 0x1_0000, bytes: 64 })]);
        pack(&specs, &declared, &buffers).map_err(|e| e.to_string())
    }

    #[test]
    fn parameters_lie_where_they_are_declared() {
        let bytes = packed(
            r#"[{"u8": 1}, {"buffer": "q", "offset": 64}, {"u16": 2}]"#,
            &[(0, 1), (8, 8), (16, 2)],
        )
        .unwrap();
        assert_eq!(bytes, [1, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 1, 0, 0, 0, 0, 0, 2, 0]);
    }

    #[test]
    fn pointers_go_into_structs() {
        let json = r#"[{"bytes": "000102030405060708090a0b0c0d0e0f10", "pointers": [{"at": 8, "buffer": "q", "offset": 3}]}]"#;
        let bytes = packed(json, &[(0, 17)]).unwrap();
        assert_eq!(bytes, [0, 1, 2, 3, 4, 5, 6, 7, 3, 0, 1, 0, 0, 0, 0, 0, 0x10]);
    }

    #[test]
    fn every_misfit_is_named() {
        let cases = [
            (r#"[{"u32": 1}]"#, vec![], "1 parameters given, but the entry declares 0"),
            (
                r#"[{"u32": 1}]"#,
                vec![(0, 8)],
                "parameter 0: 4 bytes given, but `p` is declared with 8",
            ),
            (r#"[{"buffer": "k"}]"#, vec![(0, 8)], "parameter 0: there is no buffer `k`"),
            (
                r#"[{"buffer": "q", "offset": 65}]"#,
                vec![(0, 8)],
                "parameter 0: offset 65 lies beyond buffer `q` of 64 bytes",
            ),
            (
                r#"[{"bytes": "0000000000000000", "pointers": [{"at": 1, "buffer": "q"}]}]"#,
                vec![(0, 8)],
                "parameter 0: a pointer at 1 does not lie inside of 8 bytes",
            ),
            (
                r#"[{"bytes": "00", "pointers": [{"at": 18446744073709551615, "buffer": "q"}]}]"#,
                vec![(0, 1)],
                "parameter 0: a pointer at 18446744073709551615 does not lie inside of 1 bytes",
            ),
            (
                r#"[{"bytes": "00000000000000000000000000000000", "pointers": [{"at": 4, "buffer": "q"}, {"at": 0, "buffer": "q"}]}]"#,
                vec![(0, 16)],
                "parameter 0: pointers at 4 and 0 overlap",
            ),
        ];
        for (json, declared, message) in cases {
            assert_eq!(packed(json, &declared).unwrap_err(), message);
        }
    }
}
