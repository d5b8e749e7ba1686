//! The scalar types of PTX and the state spaces, as the parser and the operation table name them.

/// A fundamental or packed type of PTX, as it is spelled after a dot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)] // The names are those of the PTX ISA.
pub enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    U16x2,
    S16x2,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F32x2,
    F64,
    E4m3,
    E5m2,
    E4m3x2,
    E5m2x2,
    U4,
    S4,
    B1,
}

/// What kind of number a type holds; decides which register types an operand may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Pred,
    Bits,
    Unsigned,
    Signed,
    Float,
}

/// The register file that holds a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) enum Class {
    /// One bit a lane, kept as one `u32` mask a warp.
    Pred,
    /// Up to 32 bits a lane; narrower values are kept zero-extended.
    Word,
    /// 64 bits a lane.
    Double,
}

const NAMES: &[(&str, Type)] = &[
    ("pred", Type::Pred),
    ("b8", Type::B8),
    ("b16", Type::B16),
    ("b32", Type::B32),
    ("b64", Type::B64),
    ("b128", Type::B128),
    ("u8", Type::U8),
    ("u16", Type::U16),
    ("u32", Type::U32),
    ("u64", Type::U64),
    ("s8", Type::S8),
    ("s16", Type::S16),
    ("s32", Type::S32),
    ("s64", Type::S64),
    ("u16x2", Type::U16x2),
    ("s16x2", Type::S16x2),
    ("f16", Type::F16),
    ("f16x2", Type::F16x2),
    ("bf16", Type::Bf16),
    ("bf16x2", Type::Bf16x2),
    ("tf32", Type::Tf32),
    ("f32", Type::F32),
    ("f32x2", Type::F32x2),
    ("f64", Type::F64),
    ("e4m3", Type::E4m3),
    ("e5m2", Type::E5m2),
    ("e4m3x2", Type::E4m3x2),
    ("e5m2x2", Type::E5m2x2),
    ("u4", Type::U4),
    ("s4", Type::S4),
    ("b1", Type::B1),
];

impl Type {
    /// The type spelled `name`, without its dot.
    pub(crate) fn parse(name: &str) -> Option<Type> {
        NAMES.iter().find(|(n, _)| *n == name).map(|&(_, t)| t)
    }

    /// How the type is spelled, without its dot.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, t)| *t == self).map_or("?", |&(n, _)| n)
    }

    /// Width in bits; a predicate counts as 1.
    pub fn bits(self) -> u32 {
        use Type::*;
        match self {
            Pred | B1 => 1,
            U4 | S4 => 4,
            B8 | U8 | S8 | E4m3 | E5m2 => 8,
            B16 | U16 | S16 | F16 | Bf16 | E4m3x2 | E5m2x2 => 16,
            B32 | U32 | S32 | U16x2 | S16x2 | F16x2 | Bf16x2 | Tf32 | F32 => 32,
            B64 | U64 | S64 | F64 | F32x2 => 64,
            B128 => 128,
        }
    }

    /// Whether so many elements make a vector.
    pub(crate) fn makes_vectors_of(self, elements: u32) -> bool {
        self != Type::Pred && self.bits() * elements <= 128
    }

    /// Width in whole bytes.
    pub(crate) fn bytes(self) -> u32 {
        self.bits().div_ceil(8)
    }

    pub(crate) fn kind(self) -> Kind {
        use Type::*;
        match self {
            Pred => Kind::Pred,
            U8 | U16 | U32 | U64 => Kind::Unsigned,
            S8 | S16 | S32 | S64 => Kind::Signed,
            F16 | F32 | F64 | F16x2 | Bf16 | Bf16x2 => Kind::Float,
            _ => Kind::Bits,
        }
    }

    pub(crate) fn class(self) -> Class {
        match self.bits() {
            1 if self == Type::Pred => Class::Pred,
            0..=32 => Class::Word,
            _ => Class::Double,
        }
    }

    /// Whether a register declared as `reg` may stand where an instruction wants `self`
    /// (section "Operand Size Exceeding Instruction-Type Size" and table "Type Checking Rules").
    pub(crate) fn accepts(self, reg: Type) -> bool {
        if self.bits() != reg.bits() || (self.kind() == Kind::Pred) != (reg.kind() == Kind::Pred) {
            return false;
        }
        let integer = |k| matches!(k, Kind::Unsigned | Kind::Signed);
        let (want, have) = (self.kind(), reg.kind());
        self == reg || want == Kind::Bits || have == Kind::Bits || (integer(want) && integer(have))
    }
}

/// Where a variable lives or an access goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Space {
    Reg,
    Param,
    Global,
    Shared,
    Local,
    Const,
    Generic,
}

impl Space {
    /// The space spelled `name`, without its dot.
    pub(crate) fn parse(name: &str) -> Option<Space> {
        Some(match name {
            "reg" => Space::Reg,
            "param" | "param::entry" | "param::func" => Space::Param,
            "global" => Space::Global,
            "shared" | "shared::cta" | "shared::cluster" => Space::Shared,
            "local" => Space::Local,
            "const" => Space::Const,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Space::Reg => "register",
            Space::Param => "param",
            Space::Global => "global",
            Space::Shared => "shared",
            Space::Local => "local",
            Space::Const => "const",
            Space::Generic => "generic",
        }
    }
}
