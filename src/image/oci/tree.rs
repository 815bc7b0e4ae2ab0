//! [`Tree`]: the root that layers make, in memory, with names, owners, modes, and the offsets of the contents.
//!
//! Symbolic links on the path to an entry are followed inside the tree, as container runtimes do. A path can't leave
//! the tree: `..` of the root is the root, and a link to `/etc` leads to the tree's own `/etc`.

use std::collections::{BTreeMap, BTreeSet};

use super::error::LayerError;
use crate::image::mke2fs::EPOCH;

/// The deepest nesting of directories.
const DEPTH_LIMIT: usize = 1024;
/// The most symbolic links on the path to one entry, as in Linux.
const LINK_LIMIT: usize = 40;

/// The files by number, beginning with the root. A file without a name stays here, but is not written to the disk.
#[derive(Debug)]
pub(super) struct Tree {
    files: Vec<Node>,
}

/// The number of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodeId(u32);

impl NodeId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) attributes: Attributes,
    pub(super) body: Body,
}

/// The metadata of a file.
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    /// Permissions, set-id bits and the sticky bit.
    pub(super) mode: u16,
    pub(super) user: u32,
    pub(super) group: u32,
    /// Seconds since 1970, and nanoseconds.
    pub(super) modified: (i64, u32),
    /// Extended attributes that are kept: names and values, in the order of their names.
    pub(super) extended: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Attributes {
    /// The attributes of a directory that no layer declares.
    pub(super) fn of_implied_directory(mode: u16) -> Attributes {
        Attributes {
            mode,
            user: 0,
            group: 0,
            modified: (EPOCH.into(), 0),
            extended: BTreeMap::new(),
        }
    }
}

#[derive(Debug)]
pub(super) enum Body {
    Directory(BTreeMap<Box<[u8]>, Name>),
    /// The offset of its bytes in the spool, and its length.
    File {
        offset: u64,
        size: u64,
    },
    Symlink(Box<[u8]>),
    Fifo,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub(super) file: NodeId,
    /// The last layer that has an entry at this name or below it.
    touched: u32,
}

/// The path of a walk to a directory of the tree.
pub(super) struct Walked {
    /// The directories from the root on.
    directories: Vec<NodeId>,
    /// The names of all but the root.
    names: Vec<Box<[u8]>>,
}

/// What a walk does if a directory is missing: create it, or stop.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    Stop,
}

/// Why a walk failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// A component of the path is missing, or is not a directory.
    Absent(&'static str),
    Deep,
}

impl Obstacle {
    /// The error for the entry `name`.
    pub(super) fn of(self, name: &[u8]) -> LayerError {
        match self {
            Obstacle::Absent(problem) => LayerError::name(name, problem),
            Obstacle::Deep => LayerError::Limit {
                what: "the directories in one another",
                limit: DEPTH_LIMIT as u64,
            },
        }
    }
}

impl Walked {
    /// The directories from the root on.
    pub(super) fn directories(&self) -> &[NodeId] {
        &self.directories
    }

    pub(super) fn end(&self) -> NodeId {
        self.directories.last().copied().unwrap_or(Tree::ROOT)
    }
}

impl Tree {
    pub(super) const ROOT: NodeId = NodeId(0);

    pub(super) fn new() -> Tree {
        Tree {
            files: vec![Node {
                attributes: Attributes::of_implied_directory(0o755),
                body: Body::Directory(BTreeMap::new()),
            }],
        }
    }

    /// The number of files, including those without a name.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.files[id.0 as usize]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.files[id.0 as usize]
    }

    /// The names of a directory; none for another file.
    pub(super) fn names(&self, id: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> {
        let names = match &self.node(id).body {
            Body::Directory(names) => Some(names),
            _ => None,
        };
        let names = names.into_iter().flatten();
        names.map(|(name, entry)| (&**name, entry.file))
    }

    pub(super) fn name(&self, directory: NodeId, name: &[u8]) -> Option<Name> {
        match &self.node(directory).body {
            Body::Directory(names) => names.get(name).copied(),
            _ => None,
        }
    }

    fn is_directory(&self, id: NodeId) -> bool {
        matches!(self.node(id).body, Body::Directory(_))
    }

    /// How many regular files with a name have a set-id bit.
    pub(super) fn set_id_files(&self) -> u64 {
        let mut found = BTreeSet::new();
        let mut pending = vec![Tree::ROOT];
        while let Some(directory) = pending.pop() {
            for (_, file) in self.names(directory) {
                let node = self.node(file);
                match node.body {
                    Body::Directory(_) => pending.push(file),
                    Body::File { .. } if node.attributes.mode & 0o6000 != 0 => {
                        found.insert(file);
                    }
                    _ => {}
                }
            }
        }
        found.len() as u64
    }

    /// Adds a file without a name.
    pub(super) fn add(&mut self, node: Node) -> NodeId {
        // The limit on entries of all layers is far lower than 2^32.
        let id = NodeId(self.files.len() as u32);
        self.files.push(node);
        id
    }

    /// Gives a file a name, replacing the file that has it.
    pub(super) fn put(&mut self, directory: NodeId, name: &[u8], file: NodeId, layer: u32) {
        if let Body::Directory(names) = &mut self.node_mut(directory).body {
            let entry = Name {
                file,
                touched: layer,
            };
            names.insert(name.into(), entry);
        }
    }

    pub(super) fn remove(&mut self, directory: NodeId, name: &[u8]) {
        if let Body::Directory(names) = &mut self.node_mut(directory).body {
            names.remove(name);
        }
    }

    /// Walks from the root to a directory, following symbolic links. Missing directories are created as entries of
    /// `layer`, or stop the walk.
    pub(super) fn walk<'a>(
        &mut self,
        components: impl DoubleEndedIterator<Item = &'a [u8]>,
        missing: Missing,
        layer: u32,
    ) -> Result<Walked, Obstacle> {
        let mut walked = Walked {
            directories: vec![Tree::ROOT],
            names: Vec::new(),
        };
        let mut pending: Vec<Vec<u8>> = components.rev().map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(component) = pending.pop() {
            if component == b".." {
                if walked.names.pop().is_some() {
                    walked.directories.pop();
                }
                continue;
            }
            let directory = walked.end();
            let file = match self.name(directory, &component) {
                Some(name) => name.file,
                None if missing == Missing::Make => {
                    self.make_directory(directory, &component, layer)
                }
                None => return Err(Obstacle::Absent("lies below what is not there")),
            };
            match &self.node(file).body {
                Body::Directory(_) if walked.names.len() == DEPTH_LIMIT => {
                    return Err(Obstacle::Deep);
                }
                Body::Directory(_) => {
                    walked.directories.push(file);
                    walked.names.push(component.into());
                }
                Body::Symlink(target) => {
                    links += 1;
                    if links > LINK_LIMIT {
                        return Err(Obstacle::Absent("lies below too many symbolic links"));
                    }
                    if target.starts_with(b"/") {
                        walked.directories.truncate(1);
                        walked.names.clear();
                    }
                    let parts = target.split(|&byte| byte == b'/');
                    let parts = parts.filter(|part| !matches!(*part, b"" | b"."));
                    pending.extend(parts.rev().map(<[u8]>::to_vec));
                }
                Body::File { .. } | Body::Fifo => {
                    return Err(Obstacle::Absent("lies below a file"));
                }
            }
        }
        Ok(walked)
    }

    fn make_directory(&mut self, directory: NodeId, name: &[u8], layer: u32) -> NodeId {
        let file = self.add(Node {
            attributes: Attributes::of_implied_directory(0o755),
            body: Body::Directory(BTreeMap::new()),
        });
        self.put(directory, name, file, layer);
        file
    }

    /// Records that `layer` has an entry below each directory of the walk.
    pub(super) fn touch(&mut self, walked: &Walked, layer: u32) {
        for (directory, name) in walked.directories.iter().zip(&walked.names) {
            if let Body::Directory(names) = &mut self.node_mut(*directory).body
                && let Some(entry) = names.get_mut(name)
            {
                entry.touched = layer;
            }
        }
    }

    /// Hides the file that layers below `layer` have at a name.
    pub(super) fn hide(&mut self, directory: NodeId, name: &[u8], layer: u32) {
        match self.name(directory, name) {
            None => {}
            Some(entry) if entry.touched != layer => self.remove(directory, name),
            Some(entry) => self.hide_all(entry.file, layer),
        }
    }

    /// Removes from a directory all entries of layers below `layer`.
    pub(super) fn hide_all(&mut self, directory: NodeId, layer: u32) {
        let mut pending = vec![directory];
        while let Some(directory) = pending.pop() {
            if let Body::Directory(names) = &mut self.node_mut(directory).body {
                names.retain(|_, entry| entry.touched == layer);
                pending.extend(names.values().map(|entry| entry.file));
            }
        }
    }

    /// Whether `layer` itself has an entry at `name` already, so that another one is a duplicate. Two directories are
    /// no duplicate.
    pub(super) fn is_taken(
        &self,
        directory: NodeId,
        name: &[u8],
        layer: u32,
        by_directory: bool,
    ) -> bool {
        self.name(directory, name).is_some_and(|entry| {
            let both = by_directory && self.is_directory(entry.file);
            entry.touched == layer && !both
        })
    }

    /// The file that a path leads to, following all links.
    pub(super) fn find(&mut self, path: &str) -> Option<NodeId> {
        let components = components(path.as_bytes());
        let mut pending: Vec<Vec<u8>> = components.map(<[u8]>::to_vec).collect();
        for _ in 0..=LINK_LIMIT {
            let name = pending.pop()?;
            let parents = pending.iter().map(Vec::as_slice);
            let parent = self.walk(parents, Missing::Stop, 0).ok()?;
            let found = self.name(parent.end(), &name)?.file;
            let Body::Symlink(target) = &self.node(found).body else {
                return Some(found);
            };
            let target = target.clone();
            if target.starts_with(b"/") {
                pending.clear();
            }
            pending.extend(components_of_link(&target));
        }
        None
    }
}

/// The components of a path, without empty ones and `.`.
pub(super) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let parts = path.split(|&byte| byte == b'/');
    parts.filter(|part| !matches!(*part, b"" | b"."))
}

fn components_of_link(target: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    components(target).map(<[u8]>::to_vec)
}
