//! The mbarrier objects of a CTA (PTX ISA, "Parallel Synchronization and Communication Instructions: mbarrier").
//!
//! An object is opaque to the program, so its state is kept here and not in the 64 bits of shared memory that
//! it owns; those bytes are closed to ordinary accesses while it lives. A state token holds the phase in full,
//! so that one from a phase long past is found instead of being taken for another of its parity.

/// Largest count of arrivals and largest transaction count.
pub(crate) const MAX_COUNT: u32 = (1 << 20) - 1;
/// Bits of a token below the phase: the pending arrivals.
const PENDING_BITS: u32 = 20;

/// One object.
#[derive(Debug, Clone)]
struct Object {
    /// Its address in shared memory.
    address: u64,
    /// Arrivals that each phase needs.
    expected: u32,
    /// Arrivals that this phase still needs.
    pending: u32,
    /// Bytes announced minus bytes arrived in this phase.
    transactions: i64,
    /// Phases completed.
    phase: u64,
}

/// The objects of one CTA.
#[derive(Debug, Default)]
pub(crate) struct Mbarriers {
    objects: Vec<Object>,
    /// Changes of any object; a thread that waits tries again when this has grown.
    pub(crate) events: u64,
    /// Times that all who wait were woken since the last change.
    idle: u32,
    /// Objects that threads have waited for in vain, until [`Mbarriers::take_wanted`].
    wanted: Vec<u64>,
    /// Objects of which a phase has completed, until [`Mbarriers::take_completed`].
    completed: Vec<u64>,
}

/// Times that all who wait are woken without any change before that is taken for a deadlock.
const PATIENCE: u32 = 1000;

/// What waiting found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Test {
    Complete,
    Incomplete,
}

type Result<T> = std::result::Result<T, String>;

impl Mbarriers {
    pub(crate) fn clear(&mut self) {
        self.objects.clear();
        self.wanted.clear();
        self.completed.clear();
        (self.events, self.idle) = (0, 0);
    }

    /// Lets all who wait try again, unless that has been in vain for too long.
    pub(crate) fn wake(&mut self) -> bool {
        self.events += 1;
        self.idle += 1;
        self.idle < PATIENCE
    }

    /// Notes that a thread waits for the object.
    pub(crate) fn wanted(&mut self, address: u64) {
        if !self.wanted.contains(&address) {
            self.wanted.push(address);
        }
    }

    /// The objects that threads have waited for in vain.
    pub(crate) fn take_wanted(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.wanted)
    }

    /// An object of which a phase has completed that nobody has been told of.
    pub(crate) fn take_completed(&mut self) -> Option<u64> {
        self.completed.pop()
    }

    fn find(&mut self, address: u64) -> Result<&mut Object> {
        let found = self.objects.iter_mut().find(|o| o.address == address);
        found.ok_or_else(|| format!("{address:#x} holds no mbarrier object"))
    }

    /// An error if no object lies at the address.
    pub(crate) fn check(&mut self, address: u64) -> Result<()> {
        self.find(address).map(|_| ())
    }

    /// Whether an object lies at the address.
    pub(crate) fn is_live(&self, address: u64) -> bool {
        self.objects.iter().any(|o| o.address == address)
    }

    pub(crate) fn init(&mut self, address: u64, count: u32) -> Result<()> {
        if self.is_live(address) {
            return Err(format!(
                "mbarrier.init at {address:#x}, which holds a live mbarrier object"
            ));
        }
        if !(1..=MAX_COUNT).contains(&count) {
            return Err(format!(
                "mbarrier.init with a count of {count}, which is not 1 to {MAX_COUNT}"
            ));
        }
        self.objects.push(Object {
            address,
            expected: count,
            pending: count,
            transactions: 0,
            phase: 0,
        });
        Ok(())
    }

    pub(crate) fn inval(&mut self, address: u64) -> Result<()> {
        self.find(address)?;
        self.objects.retain(|o| o.address != address);
        Ok(())
    }

    /// `count` arrivals; gives the state before them. `drop` takes them out of later phases too.
    pub(crate) fn arrive(&mut self, address: u64, count: u32, drop: bool) -> Result<u64> {
        let object = self.find(address)?;
        let token = object.phase << PENDING_BITS | u64::from(object.pending);
        if count == 0 || count > object.pending {
            return Err(format!(
                "{count} arrivals at the mbarrier at {address:#x}, of which its phase {} needs {} more",
                object.phase, object.pending
            ));
        }
        object.pending -= count;
        if drop {
            object.expected -= count;
        }
        self.settle(address)?;
        Ok(token)
    }

    /// As [`Mbarriers::arrive`] where the program promises that the phase goes on.
    pub(crate) fn arrive_without_completing(
        &mut self,
        address: u64,
        count: u32,
        drop: bool,
    ) -> Result<u64> {
        let before = self.find(address)?.phase;
        let token = self.arrive(address, count, drop)?;
        if self.find(address)?.phase == before {
            return Ok(token);
        }
        Err(format!(
            "an arrival with .noComplete completes phase {before} of the mbarrier at {address:#x}"
        ))
    }

    /// One arrival more before the phase can complete, for one that a copy will make.
    pub(crate) fn add_pending(&mut self, address: u64) -> Result<()> {
        let object = self.find(address)?;
        if object.pending == MAX_COUNT {
            return Err(format!(
                "more than {MAX_COUNT} pending arrivals at the mbarrier at {address:#x}"
            ));
        }
        object.pending += 1;
        Ok(())
    }

    /// Announces `bytes` that copies will bring.
    pub(crate) fn expect(&mut self, address: u64, bytes: u32) -> Result<()> {
        self.transact(address, i64::from(bytes))
    }

    /// `bytes` have arrived.
    pub(crate) fn complete(&mut self, address: u64, bytes: u32) -> Result<()> {
        self.transact(address, -i64::from(bytes))
    }

    fn transact(&mut self, address: u64, change: i64) -> Result<()> {
        let object = self.find(address)?;
        object.transactions += change;
        let count = object.transactions;
        if count.unsigned_abs() > MAX_COUNT.into() {
            return Err(format!(
                "the transaction count of the mbarrier at {address:#x} becomes {count}, beyond {MAX_COUNT} either way"
            ));
        }
        self.settle(address)
    }

    /// Ends the phase if nothing is missing.
    fn settle(&mut self, address: u64) -> Result<()> {
        let object = self.find(address)?;
        if object.pending == 0 && object.transactions == 0 {
            object.phase += 1;
            object.pending = object.expected;
            self.completed.push(address);
        }
        self.events += 1;
        self.idle = 0;
        Ok(())
    }

    /// Whether the phase of a token is complete.
    pub(crate) fn test(&mut self, address: u64, token: u64) -> Result<Test> {
        let phase = self.find(address)?.phase;
        match (token >> PENDING_BITS).cmp(&phase) {
            std::cmp::Ordering::Equal => Ok(Test::Incomplete),
            std::cmp::Ordering::Less if (token >> PENDING_BITS) + 1 == phase => Ok(Test::Complete),
            _ => Err(format!(
                "state of phase {} tested at the mbarrier at {address:#x}, which is in phase {phase}",
                token >> PENDING_BITS
            )),
        }
    }

    /// Whether the last phase of this parity is complete.
    pub(crate) fn test_parity(&mut self, address: u64, parity: u32) -> Result<Test> {
        if parity > 1 {
            return Err(format!("phase parity {parity} is neither 0 nor 1"));
        }
        let phase = self.find(address)?.phase;
        Ok(if u64::from(parity) == phase & 1 { Test::Incomplete } else { Test::Complete })
    }

    /// Pending arrivals when the token was made.
    pub(crate) fn pending_count(token: u64) -> u32 {
        token as u32 & MAX_COUNT
    }

    /// What each object waits for, for a report of a deadlock.
    pub(crate) fn waiting(&self) -> Vec<(u64, String)> {
        let idle = |o: &&Object| o.pending == o.expected && o.transactions == 0;
        let describe = |o: &Object| {
            let text = match o.transactions {
                0 => String::new(),
                bytes if bytes > 0 => {
                    format!(" and for {bytes} bytes that no copy in flight brings")
                }
                bytes => format!(", and {} bytes more have arrived than were expected", -bytes),
            };
            let Object { pending, expected, phase, address, .. } = o;
            (*address, format!("in phase {phase} waits for {pending} of {expected} arrivals{text}"))
        };
        let busy: Vec<_> = self.objects.iter().filter(|o| !idle(o)).map(describe).collect();
        if busy.is_empty() { self.objects.iter().map(describe).collect() } else { busy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0x400;

    fn ready(count: u32) -> Mbarriers {
        let mut all = Mbarriers::default();
        all.init(AT, count).unwrap();
        all
    }

    #[test]
    fn a_phase_completes_with_its_last_arrival() {
        let mut all = ready(3);
        let token = all.arrive(AT, 1, false).unwrap();
        assert_eq!(Mbarriers::pending_count(token), 3);
        assert_eq!(all.test(AT, token), Ok(Test::Incomplete));
        assert_eq!(all.test_parity(AT, 0), Ok(Test::Incomplete));
        assert_eq!(all.test_parity(AT, 1), Ok(Test::Complete));
        let last = all.arrive(AT, 2, false).unwrap();
        assert_eq!(Mbarriers::pending_count(last), 2);
        assert_eq!(all.test(AT, token), Ok(Test::Complete));
        assert_eq!(all.test_parity(AT, 0), Ok(Test::Complete));
        assert_eq!(all.test_parity(AT, 1), Ok(Test::Incomplete));
        all.arrive(AT, 3, false).unwrap();
        assert!(all.test(AT, token).unwrap_err().contains("phase 0"));
    }

    #[test]
    fn bytes_hold_a_phase_open_in_either_order() {
        let mut all = ready(1);
        all.complete(AT, 64).unwrap();
        all.expect(AT, 64).unwrap();
        assert_eq!(all.test_parity(AT, 0), Ok(Test::Incomplete));
        all.expect(AT, 32).unwrap();
        let token = all.arrive(AT, 1, false).unwrap();
        assert_eq!(all.test(AT, token), Ok(Test::Incomplete));
        assert!(all.waiting()[0].1.contains("for 32 bytes"));
        all.complete(AT, 32).unwrap();
        assert_eq!(all.test(AT, token), Ok(Test::Complete));
        assert!(all.expect(AT, MAX_COUNT).is_ok() && all.expect(AT, 1).is_err());
    }

    #[test]
    fn who_drops_out_is_not_waited_for() {
        let mut all = ready(2);
        all.arrive(AT, 1, true).unwrap();
        all.arrive(AT, 1, false).unwrap();
        let token = all.arrive(AT, 1, false).unwrap();
        assert_eq!(all.test(AT, token), Ok(Test::Complete));
    }

    #[test]
    fn misuse_is_refused() {
        let mut all = ready(2);
        assert!(all.init(AT, 2).is_err());
        assert!(all.init(AT + 8, 0).is_err() && all.init(AT + 8, MAX_COUNT + 1).is_err());
        assert!(all.arrive(AT, 3, false).is_err() && all.arrive(AT, 0, false).is_err());
        assert!(all.arrive_without_completing(AT, 1, false).is_ok());
        assert!(all.arrive_without_completing(AT, 1, false).is_err());
        assert!(all.test_parity(AT, 2).is_err());
        all.inval(AT).unwrap();
        assert!(
            all.inval(AT).is_err() && all.arrive(AT, 1, false).is_err() && all.test(AT, 0).is_err()
        );
    }
}
