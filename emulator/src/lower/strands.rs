//! Which accesses to memory come in strands: from the same registers, which no instruction in between writes, so that for lanes that run
//! one instruction after the other only how far they are from there tells them apart.

use super::body::Body;
use super::symbols::Register;
use crate::types::Class;

/// What accesses of one strand have in common: bytes of each lane, and the registers that their addresses are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Strand {
    pub(crate) bytes: u32,
    /// Of the address, and of a copy's destination: the slot, and whether it has 64 bits.
    pub(crate) bases: [Option<(u32, bool)>; 2],
}

impl Strand {
    fn is_made_of(&self, class: Class, slot: u32) -> bool {
        let is = |&(base, wide): &(u32, bool)| {
            base == slot && class == if wide { Class::Double } else { Class::Word }
        };
        self.bases.iter().flatten().any(is)
    }
}

/// Strands that go on at a time; more are found only in part.
const MOST: usize = 16;

/// A strand that goes on: its first access, and the first that no guard lets some lanes make only.
struct Going {
    strand: Strand,
    first: u32,
    home: Option<u32>,
}

/// Sets [`Inst::strand`](crate::exec::inst::Inst::strand) and [`Inst::home`](crate::exec::inst::Inst::home) of all accesses.
pub(super) fn number(body: &mut Body<'_>) {
    let mut strands: Vec<Going> = Vec::new();
    for (pc, meta) in body.metas.iter().enumerate() {
        if let Some(strand) = meta.strand {
            let known = strands.iter().position(|going| going.strand == strand);
            let place = known.unwrap_or_else(|| {
                strands.truncate(MOST - 1);
                strands.insert(0, Going { strand, first: pc as u32, home: None });
                0
            });
            let going = &mut strands[place];
            body.code[pc].strand = going.first;
            if !meta.guarded {
                body.code[pc].home = *going.home.get_or_insert(pc as u32);
            }
        }
        for &register in &meta.writes {
            let class = Register::class(&body.registers[register as usize]);
            let slot = body.slot(register);
            strands.retain(|going| !going.strand.is_made_of(class, slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::random::Random;
    use crate::testing::warp;

    /// A loop around `lines` in which lanes access 256 bytes each, their own, from `%a` and `%x` on.
    fn program(lines: &str) -> String {
        format!(
            ".shared .align 16 .b8 s[8192]; .reg .b32 %lane, %i, %base; .reg .pred %odd, %some;
             mov.u32 %lane, %laneid; mov.u32 %a, s; mad.lo.u32 %a, %lane, 256, %a; mov.u32 %i, 0;
             fill: mad.lo.u32 %b, %i, 7, %lane; st.shared.u32 [%a], %b; add.u32 %a, %a, 4; add.u32 %i, %i, 1;
             setp.lt.u32 %p, %i, 64; @%p bra fill; sub.u32 %a, %a, 256; cvt.u64.u32 %x, %a; mov.u32 %i, 0;
             again: and.b32 %b, %i, 1; setp.eq.u32 %odd, %b, 1; add.u32 %b, %i, %lane; and.b32 %b, %b, 3; setp.eq.u32 %some, %b, 0;
             {lines}
             over: add.u32 %i, %i, 1; setp.lt.u32 %p, %i, 6; @%p bra again;"
        )
    }

    #[test]
    fn registers_are_looked_at_where_they_may_have_changed() {
        let mut random = Random::new(4, 2);
        for _ in 0..120 {
            // Each access from the register itself, and from a copy of it, which is new each time.
            let (mut strands, mut apart) = (String::new(), String::new());
            let (mut label, mut moves) = (0, 0);
            for _ in 0..3 + random.below(12) {
                let guard = ["", "", "", "@%odd", "@%some", "@!%some"][random.below(6)];
                let wide = random.below(3) == 0;
                let (base, bits) = if wide { ("%x", 64) } else { ("%a", 32) };
                let copy = if wide { "%y" } else { "%base" };
                let offset = 4 * random.below(8);
                let mut both = |text: &str| {
                    strands += &format!("{text}\n");
                    apart += &format!("{text}\n");
                };
                match random.below(8) {
                    2 | 3 if moves < 8 => {
                        moves += 1;
                        both(&format!("{guard} add.u{bits} {base}, {base}, 4;"));
                    }
                    4 if !guard.is_empty() => both(&format!("{guard} bra over;")),
                    5 => {
                        label += 1;
                        both(&format!("{guard} bra l{label}; mul.lo.u32 %d, %d, 3; l{label}:"));
                    }
                    kind => {
                        let (access, rest) = match kind {
                            0 | 1 => (format!("st.shared.u32 [BASE+{offset}], %d;"), ""),
                            _ => (
                                format!("ld.shared.u32 %c, [BASE+{offset}];"),
                                "mad.lo.u32 %d, %d, 5, %c;",
                            ),
                        };
                        strands += &format!("{guard} {} {rest}\n", access.replace("BASE", base));
                        let access = access.replace("BASE", copy);
                        apart += &format!("mov.b{bits} {copy}, {base}; {guard} {access} {rest}\n");
                    }
                }
            }
            assert_eq!(warp(&program(&strands)), warp(&program(&apart)), "{strands}");
        }
    }
}
