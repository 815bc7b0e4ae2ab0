//! [`Applier`]: applies layers to a tree, one after the other, with their entries, whiteouts and opaque directories.
//!
//! A layer that breaks a rule makes the whole image an error. The exception are devices, which are skipped and counted,
//! because the guest has its own.

use std::collections::{BTreeMap, HashSet};

use super::{
    error::{LayerError, shown},
    spool::Spool,
    tar::{Entry, Input, Kind, Reader},
    tree::{Attributes, Body, Missing, Node, NodeId, Tree, components},
};
use crate::image::stop::Stop;

/// The most entries of all layers together.
const ENTRY_LIMIT: u64 = 1_000_000;
/// The longest name in a directory, in bytes.
const NAME_LIMIT: usize = 255;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Applies layers, in their order.
pub(super) struct Applier<'a> {
    pub(super) tree: Tree,
    pub(super) counts: Counts,
    spool: &'a mut Spool,
    stop: Stop<'a>,
    /// The number of the layer that is applied, from 1 on.
    layer: u32,
    entries: u64,
    /// The layer's whiteouts, to refuse duplicates: each whiteout may walk through a large directory.
    whiteouts: HashSet<(NodeId, Box<[u8]>)>,
}

/// How many devices and extended attributes were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) devices: u64,
    pub(super) attributes: u64,
}

impl<'a> Applier<'a> {
    pub(super) fn new(spool: &'a mut Spool, stop: Stop<'a>) -> Applier<'a> {
        Applier {
            tree: Tree::new(),
            counts: Counts::default(),
            spool,
            stop,
            layer: 0,
            entries: 0,
            whiteouts: HashSet::new(),
        }
    }

    /// Applies the next layer, a tar.
    pub(super) fn layer(&mut self, input: impl Input) -> Result<(), LayerError> {
        self.layer += 1;
        self.whiteouts.clear();
        let mut reader = Reader::new(input);
        let before = self.entries;
        loop {
            let next = reader.next()?;
            self.entries = before + reader.headers();
            if self.entries > ENTRY_LIMIT {
                return Err(LayerError::Limit {
                    what: "the entries of all layers",
                    limit: ENTRY_LIMIT,
                });
            }
            if self.stop.is_requested() {
                return Err(LayerError::Stopped);
            }
            match next {
                Some(entry) => self.entry(entry, &mut reader)?,
                None => return Ok(()),
            }
        }
    }

    fn entry(&mut self, entry: Entry, reader: &mut Reader<impl Input>) -> Result<(), LayerError> {
        let written = entry.name.clone();
        let parts = checked(&written)?;
        let Some((&name, parents)) = parts.split_last() else {
            return self.root(entry);
        };
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(&written, parents, name, hidden);
        }
        let missing = match entry.kind {
            // A device creates nothing; it only hides a file of that name.
            Kind::Device => Missing::Stop,
            _ => Missing::Make,
        };
        let walked = self.tree.walk(parents.iter().copied(), missing, self.layer);
        if entry.kind == Kind::Device {
            self.counts.devices += 1;
            if let Ok(walked) = walked {
                self.tree.hide(walked.end(), name, self.layer);
            }
            return Ok(());
        }
        let walked = walked.map_err(|obstacle| obstacle.of(&written))?;
        let directory = walked.end();
        self.tree.touch(&walked, self.layer);
        let is_directory = entry.kind == Kind::Directory;
        if self
            .tree
            .is_taken(directory, name, self.layer, is_directory)
        {
            return Err(LayerError::Twice {
                name: shown(&written),
            });
        }
        if entry.kind == Kind::HardLink {
            let target = self.target(&entry)?;
            self.tree.put(directory, name, target, self.layer);
            return Ok(());
        }
        let attributes = self.attributes(&entry);
        if is_directory
            && let Some(there) = self.tree.name(directory, name)
            && let node = self.tree.node_mut(there.file)
            && matches!(node.body, Body::Directory(_))
        {
            node.attributes = attributes;
            self.tree.put(directory, name, there.file, self.layer);
            return Ok(());
        }
        let body = match entry.kind {
            Kind::Directory => Body::Directory(BTreeMap::new()),
            Kind::Symlink if entry.target.is_empty() || entry.target.contains(&0) => {
                return Err(LayerError::name(&written, "is a symbolic link to no name"));
            }
            Kind::Symlink => Body::Symlink(entry.target.into()),
            Kind::Fifo => Body::Fifo,
            Kind::File | Kind::HardLink | Kind::Device => Body::File {
                offset: self.spool.receive(reader)?,
                size: entry.size,
            },
        };
        let file = self.tree.add(Node { attributes, body });
        self.tree.put(directory, name, file, self.layer);
        Ok(())
    }

    fn root(&mut self, entry: Entry) -> Result<(), LayerError> {
        if entry.kind != Kind::Directory {
            return Err(LayerError::name(
                &entry.name,
                "is the root, and no directory",
            ));
        }
        let attributes = self.attributes(&entry);
        self.tree.node_mut(Tree::ROOT).attributes = attributes;
        Ok(())
    }

    /// Hides the file that the layers below have at a name, or all files that they have in a directory.
    fn whiteout(
        &mut self,
        written: &[u8],
        parents: &[&[u8]],
        name: &[u8],
        hidden: &[u8],
    ) -> Result<(), LayerError> {
        let is_opaque = name == OPAQUE;
        if !is_opaque && (matches!(hidden, b"" | b"." | b"..") || hidden.starts_with(WHITEOUT)) {
            return Err(LayerError::Whiteout {
                name: shown(written),
                problem: "hides a name that no file has",
            });
        }
        let parents = parents.iter().copied();
        // The directory doesn't exist, so there is nothing to hide.
        let Ok(walked) = self.tree.walk(parents, Missing::Stop, self.layer) else {
            return Ok(());
        };
        let directory = walked.end();
        if !self.whiteouts.insert((directory, name.into())) {
            return Err(LayerError::Twice {
                name: shown(written),
            });
        }
        match is_opaque {
            true => self.tree.hide_all(directory, self.layer),
            false => self.tree.hide(directory, hidden, self.layer),
        }
        Ok(())
    }

    /// The file that a hard link leads to.
    fn target(&mut self, link: &Entry) -> Result<NodeId, LayerError> {
        let refused = |problem| LayerError::HardLink {
            name: shown(&link.name),
            target: shown(&link.target),
            problem,
        };
        let parts = checked(&link.target).map_err(|error| match error {
            LayerError::Name { problem, .. } => refused(problem),
            other => other,
        })?;
        let (&name, parents) = parts
            .split_last()
            .ok_or_else(|| refused("is to the root"))?;
        let walked = self
            .tree
            .walk(parents.iter().copied(), Missing::Stop, self.layer);
        let there = walked
            .ok()
            .and_then(|walked| self.tree.name(walked.end(), name))
            .ok_or_else(|| refused("leads to nothing"))?;
        match self.tree.node(there.file).body {
            Body::Directory(_) => Err(refused("is to a directory")),
            _ => Ok(there.file),
        }
    }

    /// The attributes of an entry, with the extended attributes that are kept.
    fn attributes(&mut self, entry: &Entry) -> Attributes {
        let mut extended = BTreeMap::new();
        for (name, value) in &entry.attributes {
            let is_kept = name == b"security.capability"
                || name.strip_prefix(b"user.").is_some_and(|rest| {
                    !rest.is_empty() && rest.len() <= NAME_LIMIT && !rest.contains(&0)
                });
            match is_kept {
                true => drop(extended.insert(name.clone(), value.clone())),
                false => self.counts.attributes += 1,
            }
        }
        Attributes {
            // Linux always shows this mode for a symbolic link, and ignores it.
            mode: match entry.kind {
                Kind::Symlink => 0o777,
                _ => entry.mode,
            },
            user: entry.user,
            group: entry.group,
            modified: entry.modified,
            extended,
        }
    }
}

/// The components of a name, after a check that it doesn't leave the root.
fn checked(name: &[u8]) -> Result<Vec<&[u8]>, LayerError> {
    let refused = |problem| Err(LayerError::name(name, problem));
    if name.starts_with(b"/") {
        return refused("is an absolute path");
    }
    if name.is_empty() {
        return refused("is empty");
    }
    let parts: Vec<_> = components(name).collect();
    if parts.contains(&&b".."[..]) {
        return refused("has a \"..\" in it");
    }
    if parts.iter().any(|part| part.len() > NAME_LIMIT) {
        return refused("has a component of more than 255 bytes");
    }
    if name.contains(&0) {
        return refused("has a NUL byte in it");
    }
    Ok(parts)
}
