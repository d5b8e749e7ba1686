//! Device functions: which are lowered in place of each call, and the calls of those that are not.
//!
//! In place is the rule, so that a program counter alone says where a lane is and lanes that part
//! inside a function meet again behind it. A function keeps code of its own if it may be called
//! while it is running (recursion), if its address is taken, if it allocates memory, or if calls are nested too deeply;
//! [`crate::exec::stack`] holds the frames of those.

use std::collections::{HashMap, HashSet};

use crate::memory::FUNCTIONS;
use crate::parse::ast::{Function, Init, Operand, Statement, Tree};
use crate::types::Class;

/// Local memory for the frames of recursive functions, in bytes a lane.
pub(crate) const STACK_BYTES: u64 = 16 << 10;

/// A function with code of its own, ready to run.
#[derive(Debug, Clone)]
pub(crate) struct Callee {
    pub(crate) name: String,
    /// What its address is.
    pub(crate) address: u64,
    /// Program counter of its first instruction.
    pub(crate) entry: u32,
    /// Local memory of one call.
    pub(crate) frame_bytes: u64,
    /// Results and parameters in the frame.
    pub(crate) results: Vec<Span>,
    pub(crate) params: Vec<Span>,
    /// Whether it may be called while it runs, so that its registers have to be kept.
    pub(crate) recursive: bool,
    /// Slots of its registers, by class: words, doubles, predicates.
    pub(crate) registers: [Vec<u32>; 3],
    /// Its tracked registers.
    pub(crate) tracked: Vec<u32>,
    /// Slots that hold addresses in the frame, with the offset from its start.
    pub(crate) addresses: Vec<(Class, u32, i64)>,
}

/// Bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// A function with code of its own, while an entry is being lowered.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Index among the tree's functions.
    pub(crate) function: usize,
    /// Program counter of its first instruction, once it has code.
    pub(crate) entry: u32,
    /// Its registers, as a range.
    pub(crate) registers: std::ops::Range<u32>,
    pub(crate) frame: Frame,
}

/// Local memory of a function with code of its own.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    pub(crate) bytes: u64,
    pub(crate) results: Vec<Span>,
    pub(crate) params: Vec<Span>,
    pub(crate) addresses: HashMap<(Class, i64), u32>,
}

/// What the call graph of a module says about its functions.
#[derive(Debug, Default)]
pub(crate) struct Graph<'s> {
    /// Index of each function, the one with a body where there are several declarations.
    by_name: HashMap<&'s str, usize>,
    recursive: HashSet<usize>,
    /// Functions whose address something takes.
    taken: Vec<usize>,
    /// Functions that allocate memory on the stack.
    allocating: HashSet<usize>,
}

impl<'s> Graph<'s> {
    pub(crate) fn new(tree: &'s Tree<'s>) -> Graph<'s> {
        let mut graph = Graph::default();
        for (index, function) in tree.functions.iter().enumerate().filter(|(_, f)| !f.entry) {
            let known = graph.by_name.entry(function.name).or_insert(index);
            if tree.functions[*known].body.is_none() && function.body.is_some() {
                *known = index;
            }
        }
        let mut uses = vec![Uses::default(); tree.functions.len()];
        for (index, function) in tree.functions.iter().enumerate() {
            collect(function.body.as_deref().unwrap_or_default(), &graph.by_name, &mut uses[index]);
        }
        graph.allocating = (0..uses.len()).filter(|&index| uses[index].allocates).collect();
        if graph.by_name.is_empty() {
            return graph;
        }
        let named = tree.variables.iter().flat_map(|v| &v.init).filter_map(|init| match init {
            Init::Symbol(name, ..) => graph.by_name.get(name).copied(),
            Init::Bits(_) => None,
        });
        let taken: HashSet<usize> =
            named.chain(uses.iter().flat_map(|u| u.taken.iter().copied())).collect();
        graph.taken = taken.into_iter().collect();
        graph.taken.sort_unstable();
        graph.recursive = on_cycles(&uses, &graph.taken);
        graph
    }

    /// Index of the function of this name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Functions that an indirect call may reach.
    pub(crate) fn taken(&self) -> &[usize] {
        &self.taken
    }

    pub(crate) fn is_recursive(&self, function: usize) -> bool {
        self.recursive.contains(&function)
    }

    /// Whether the function is lowered once, not in place of its calls.
    pub(crate) fn has_own_code(&self, function: usize) -> bool {
        self.is_recursive(function)
            || self.taken.binary_search(&function).is_ok()
            || self.allocating.contains(&function)
    }
}

/// What a body refers to.
#[derive(Debug, Default, Clone)]
struct Uses {
    calls: HashSet<usize>,
    taken: HashSet<usize>,
    indirect: bool,
    allocates: bool,
}

fn collect(statements: &[Statement<'_>], functions: &HashMap<&str, usize>, uses: &mut Uses) {
    for statement in statements {
        match statement {
            Statement::Block(inner) => collect(inner, functions, uses),
            Statement::CallTargets { functions: names, .. } => {
                uses.taken.extend(names.iter().filter_map(|n| functions.get(n)))
            }
            Statement::Instruction(ins) => {
                uses.allocates |= ins.opcode == "alloca";
                let called = (ins.opcode == "call").then(|| target(&ins.operands)).flatten();
                match called.map(|name| functions.get(name)) {
                    Some(Some(&function)) => {
                        uses.calls.insert(function);
                    }
                    Some(None) => uses.indirect = true,
                    None => uses.taken.extend(ins.operands.iter().filter_map(|o| match o {
                        Operand::Name(name) | Operand::SymbolOffset(name, _) => functions.get(name),
                        _ => None,
                    })),
                }
            }
            _ => {}
        }
    }
}

/// The name behind `call`: of a function, or of the register that holds its address.
fn target<'s>(operands: &[Operand<'s>]) -> Option<&'s str> {
    operands.iter().take(2).find_map(|operand| match operand {
        Operand::Name(name) => Some(*name),
        _ => None,
    })
}

/// Functions that can be called while they run: those on a cycle of calls, found as the strongly connected components
/// of the graph (Tarjan 1972). All indirect calls go through one node of their own.
fn on_cycles(uses: &[Uses], taken: &[usize]) -> HashSet<usize> {
    let hub = uses.len();
    let next = |node: usize| -> Vec<usize> {
        if node == hub {
            return taken.to_vec();
        }
        let indirect = uses[node].indirect.then_some(hub);
        uses[node].calls.iter().copied().chain(indirect).collect()
    };
    let mut found = HashSet::new();
    // When a node was met first, counted from 1, and the earliest node on the path that it leads back to.
    let (mut met, mut low) = (vec![0; hub + 1], vec![0; hub + 1]);
    let (mut path, mut on_path) = (Vec::new(), vec![false; hub + 1]);
    let mut time = 0;
    for root in 0..=hub {
        let mut work = Vec::new();
        if met[root] == 0 {
            work.push((root, next(root)));
        }
        while let Some((node, left)) = work.last_mut() {
            let node = *node;
            if met[node] == 0 {
                time += 1;
                (met[node], low[node]) = (time, time);
                path.push(node);
                on_path[node] = true;
            }
            if let Some(to) = left.pop() {
                if to == node {
                    found.insert(node);
                } else if met[to] == 0 {
                    work.push((to, next(to)));
                } else if on_path[to] {
                    low[node] = low[node].min(met[to]);
                }
                continue;
            }
            work.pop();
            if let Some(&(caller, _)) = work.last() {
                low[caller] = low[caller].min(low[node]);
            }
            if low[node] == met[node] {
                let first = path.iter().rposition(|&n| n == node).unwrap_or(0);
                let component = path.split_off(first);
                component.iter().for_each(|&n| on_path[n] = false);
                if component.len() > 1 {
                    found.extend(component);
                }
            }
        }
    }
    found.remove(&hub);
    found
}

/// Lays results and parameters out at the start of a frame.
pub(crate) fn frame_of(function: &Function<'_>) -> Frame {
    let mut frame = Frame::default();
    let mut place = |variable: &crate::parse::ast::Variable<'_>| {
        let offset = frame.bytes.next_multiple_of(variable.align.max(1));
        frame.bytes = offset + variable.bytes;
        Span { offset, bytes: variable.bytes }
    };
    let results = function.returns.iter().map(&mut place).collect();
    let params = function.params.iter().map(&mut place).collect();
    Frame { results, params, ..frame }
}

/// The address of function `index` of the module: a number that is no address of any memory.
pub(crate) const fn function_address(index: usize) -> u64 {
    FUNCTIONS + 16 * index as u64
}

/// Local memory that frames need: what each function takes once, or a fixed amount if any is recursive or allocates.
pub(super) fn stack_bytes(callees: &[Callee], allocates: bool) -> u64 {
    if allocates || callees.iter().any(|c| c.recursive) {
        return STACK_BYTES;
    }
    callees.iter().map(|c| c.frame_bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: a function that can be reached from itself.
    fn reaches_itself(from: usize, uses: &[Uses], taken: &[usize]) -> bool {
        let (mut seen, mut work) = (HashSet::new(), vec![from]);
        while let Some(at) = work.pop() {
            let indirect = if uses[at].indirect { taken } else { &[] };
            for &next in uses[at].calls.iter().chain(indirect) {
                if next == from {
                    return true;
                }
                if seen.insert(next) {
                    work.push(next);
                }
            }
        }
        false
    }

    #[test]
    fn cycles_are_found_in_graphs_of_every_density() {
        let mut random = crate::random::Random::new(1, 0);
        for round in 0..400 {
            let nodes = 1 + random.below(12);
            let mut uses = vec![Uses::default(); nodes];
            for _ in 0..random.below(2 * nodes) {
                uses[random.below(nodes)].calls.insert(random.below(nodes));
            }
            let taken: Vec<usize> =
                (0..nodes).filter(|_| round % 2 == 1 && random.below(4) == 0).collect();
            uses.iter_mut().for_each(|u| u.indirect = random.below(4) == 0);
            let expected = (0..nodes).filter(|&n| reaches_itself(n, &uses, &taken)).collect();
            assert_eq!(on_cycles(&uses, &taken), expected, "{uses:?} {taken:?}");
        }
    }
}
