//! Code for the vector instructions of the processor at hand, outside of handlers.

#[cfg(target_arch = "x86_64")]
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Work whose loops over lanes are to become vector code. Implementations are `#[inline(always)]`, so that [`call`]
/// can compile them for the processor.
pub(crate) trait Routine {
    type Out;
    fn run(self) -> Self::Out;
}

/// The features that handlers and routines are compiled for. Every processor of x86-64 since 2013 has them.
macro_rules! with_features {
    ($($item:tt)*) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,f16c,lzcnt,popcnt")]
        $($item)*
    };
}
pub(super) use with_features;

/// Whether the processor has every one of these features.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn is_available() -> bool {
    FOUND.load(Relaxed) || detect()
}

/// Set once the features have been found.
#[cfg(target_arch = "x86_64")]
static FOUND: AtomicBool = AtomicBool::new(false);

#[cfg(target_arch = "x86_64")]
#[cold]
fn detect() -> bool {
    let found = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt");
    FOUND.store(found, Relaxed);
    found
}

with_features! {
    #[inline(never)]
    fn wide<R: Routine>(routine: R) -> R::Out {
        routine.run()
    }
}

#[cfg(any(not(target_arch = "x86_64"), feature = "portable"))]
#[inline(never)]
fn portable<R: Routine>(routine: R) -> R::Out {
    routine.run()
}

/// Runs a routine in the form that suits this processor.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) fn call<R: Routine>(routine: R) -> R::Out {
    #[cfg(target_arch = "x86_64")]
    if is_available() {
        // SAFETY: `is_available` has just found every feature that `wide` is compiled for on this processor.
        return unsafe { wide(routine) };
    }
    #[cfg(any(not(target_arch = "x86_64"), feature = "portable"))]
    return portable(routine);
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    unreachable!("`Module::parse` refuses a processor that lacks these features");
}
