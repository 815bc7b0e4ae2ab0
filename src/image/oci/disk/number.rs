//! [`Numbered`]: assigns inode numbers to the files of a tree that have a name, in the order of a walk by sorted names.

use super::{
    super::{
        error::{ContainerError, shown},
        tree::{Body, NodeId, Tree},
    },
    attributes::{self, Place},
};

/// The number of the root's inode, and the first number that is not reserved.
pub(super) const ROOT: u32 = 2;
pub(super) const FIRST: u32 = 11;

/// The most names of a file, and the most links of a directory, which has one for itself, one from its parent, and one
/// from each subdirectory.
const LINK_LIMIT: u16 = 65_000;

/// A file and its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct NumberedFile {
    pub(super) index: usize,
    pub(super) number: u32,
    pub(super) node: NodeId,
    pub(super) links: u16,
    /// For a directory: the number of its parent directory.
    pub(super) parent: u32,
    pub(super) attributes: Place,
}

/// The files of a tree in the order of their numbers.
pub(super) struct Numbered {
    files: Vec<NumberedFile>,
    /// The index of each file of the tree that has a name.
    indexes: Vec<Option<u32>>,
}

impl Numbered {
    pub(super) fn new(tree: &Tree) -> Result<Numbered, ContainerError> {
        let mut numbered = Numbered {
            files: Vec::new(),
            indexes: vec![None; tree.len()],
        };
        let root = numbered.add(tree, Tree::ROOT, b"/")?;
        numbered.files[root].links = 2;
        numbered.files[root].parent = ROOT;
        // The files of a directory get their numbers before those of its subdirectories.
        let mut pending = vec![root];
        let mut next = Vec::new();
        while let Some(directory) = pending.pop() {
            for (name, node) in tree.names(numbered.files[directory].node) {
                let index = match numbered.indexes[node.index()] {
                    Some(index) => index as usize,
                    None => numbered.add(tree, node, name)?,
                };
                if matches!(tree.node(node).body, Body::Directory(_)) {
                    numbered.files[index].links = 1;
                    numbered.files[index].parent = numbered.files[directory].number;
                    numbered.link(directory, "the subdirectories of a directory")?;
                    next.push(index);
                }
                numbered.link(index, "the names of a file")?;
            }
            pending.extend(next.drain(..).rev());
        }
        Ok(numbered)
    }

    fn add(&mut self, tree: &Tree, node: NodeId, name: &[u8]) -> Result<usize, ContainerError> {
        let extended = &tree.node(node).attributes.extended;
        let attributes = attributes::place(extended).ok_or_else(|| ContainerError::Attributes {
            name: shown(name),
            bytes: attributes::size(extended),
        })?;
        let index = self.files.len();
        // A tree has far fewer files than there are 32-bit numbers.
        let number = match index as u32 {
            0 => ROOT,
            index => FIRST - 1 + index,
        };
        self.files.push(NumberedFile {
            index,
            number,
            node,
            links: 0,
            parent: 0,
            attributes,
        });
        self.indexes[node.index()] = Some(index as u32);
        Ok(index)
    }

    fn link(&mut self, index: usize, what: &'static str) -> Result<(), ContainerError> {
        let links = &mut self.files[index].links;
        if *links == LINK_LIMIT {
            return Err(ContainerError::Filesystem {
                what,
                limit: LINK_LIMIT.into(),
            });
        }
        *links += 1;
        Ok(())
    }

    /// All files, in the order of their numbers.
    pub(super) fn files(&self) -> &[NumberedFile] {
        &self.files
    }

    /// The number of a file that has a name.
    pub(super) fn number(&self, node: NodeId) -> u32 {
        let index = self.indexes[node.index()];
        index.map_or(0, |index| self.files[index as usize].number)
    }

    /// The number of inodes, including the reserved ones.
    pub(super) fn inodes(&self) -> u64 {
        // The root's number is a reserved one.
        u64::from(FIRST - 2) + self.files.len() as u64
    }

    /// The regular files with content, in the order in which the contents lie in the spool.
    pub(super) fn files_in_spool(&self, tree: &Tree) -> Vec<NumberedFile> {
        let start = |file: &NumberedFile| match tree.node(file.node).body {
            Body::File { offset, size } if size > 0 => Some(offset),
            _ => None,
        };
        let mut files: Vec<_> = self
            .files
            .iter()
            .filter_map(|file| Some((start(file)?, *file)))
            .collect();
        files.sort_unstable_by_key(|(start, _)| *start);
        files.into_iter().map(|(_, file)| file).collect()
    }
}
