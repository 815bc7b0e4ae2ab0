//! Takes the environment, the working directory and the user for tools from an image's configuration.

use std::{collections::BTreeMap, fs::File, os::unix::fs::FileExt};

use super::{
    documents::Execution,
    error::ContainerError,
    tree::{Attributes, Body, Missing, Node, NodeId, Tree, components},
};
use crate::image::input::MIB;

/// The default user and group of tools.
pub(super) const TOOL: User = User {
    uid: 1000,
    gid: 1000,
};

/// The largest `/etc/passwd` and `/etc/group` that are read, in bytes.
const LIST_LIMIT: u64 = 4 * MIB;

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A root whose files can be read.
pub(super) struct Root<'a> {
    pub(super) tree: &'a mut Tree,
    pub(super) spool: &'a File,
}

/// The environment in the configuration, from entries `NAME=value`. If a name occurs twice, the last value counts.
pub(super) fn environment(
    execution: &Execution,
) -> Result<BTreeMap<String, String>, ContainerError> {
    let variables = execution.env.iter().flatten();
    let variables = variables.map(|variable| match variable.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        // The entry may be secret, so the error does not contain it.
        _ => Err(ContainerError::Value {
            document: "configuration",
            problem: "an entry of Env is not NAME=value".to_owned(),
        }),
    });
    variables.collect()
}

impl Root<'_> {
    /// The user that the configuration names, as `USER` or `USER:GROUP`, each a name or a number. `None` if it names no
    /// user, or root, because no tool runs as root.
    ///
    /// Without `GROUP`, the group is that of the user in `/etc/passwd`, or else the group with the user's own number;
    /// it never defaults to root's.
    pub(super) fn user(&mut self, execution: &Execution) -> Result<Option<User>, ContainerError> {
        let text = execution.user.as_deref().unwrap_or_default();
        let refused = |problem| ContainerError::User {
            user: text.to_owned(),
            problem,
        };
        let (name, group) = match text.split_once(':') {
            Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
            None => (text, None),
        };
        if name.is_empty() {
            return Ok(None);
        }
        let listed = self.list("etc/passwd")?;
        let number = number(name);
        let entry = listed.lines().map(fields).find(|fields| match number {
            Some(uid) => fields.get(2).and_then(|field| self::number(field)) == Some(uid),
            None => fields.first() == Some(&name),
        });
        let field = |index: usize| {
            entry
                .as_ref()?
                .get(index)
                .and_then(|field| self::number(field))
        };
        let uid = number
            .or(field(2))
            .ok_or_else(|| refused("the image's /etc/passwd has no such user"))?;
        if uid == 0 {
            return Ok(None);
        }
        let gid = match group {
            None => field(3).unwrap_or(uid),
            Some(group) => self
                .group(group)?
                .ok_or_else(|| refused("the image's /etc/group has no such group"))?,
        };
        Ok(Some(User { uid, gid }))
    }

    fn group(&mut self, group: &str) -> Result<Option<u32>, ContainerError> {
        if let Some(gid) = number(group) {
            return Ok(Some(gid));
        }
        let listed = self.list("etc/group")?;
        let entry = listed
            .lines()
            .map(fields)
            .find(|fields| fields.first() == Some(&group));
        Ok(entry.and_then(|fields| number(fields.get(2)?)))
    }

    /// The text of a list of users or groups; empty if the file doesn't exist.
    fn list(&mut self, path: &str) -> Result<String, ContainerError> {
        let Some(found) = self.tree.find(path) else {
            return Ok(String::new());
        };
        let Body::File { offset, size } = self.tree.node(found).body else {
            return Ok(String::new());
        };
        if size > LIST_LIMIT {
            return Err(ContainerError::Value {
                document: "root",
                problem: format!("/{path} has {size} bytes, and at most {LIST_LIMIT} are read"),
            });
        }
        let mut bytes = vec![0; size as usize];
        self.spool
            .read_exact_at(&mut bytes, offset)
            .map_err(|source| ContainerError::Unreadable {
                name: format!("/{path}"),
                source,
            })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The absolute path of a program, which is searched in `PATH` unless its name has a slash. `None` if it doesn't
    /// exist or isn't executable.
    pub(super) fn program(&mut self, program: &str, path: &str) -> Option<String> {
        let candidates: Vec<String> = match program.contains('/') {
            true if program.starts_with('/') => vec![program.to_owned()],
            true => Vec::new(),
            false => path
                .split(':')
                .filter(|dir| dir.starts_with('/'))
                .map(|dir| format!("{}/{program}", dir.trim_end_matches('/')))
                .collect(),
        };
        candidates.into_iter().find(|candidate| {
            let found = self.tree.find(candidate);
            found.is_some_and(|found| {
                let node = self.tree.node(found);
                matches!(node.body, Body::File { .. }) && node.attributes.mode & 0o111 != 0
            })
        })
    }

    /// Creates the working directory of tools, unless it exists. Fails if `user` can't enter it, because tools would
    /// not start.
    pub(super) fn prepare_directory(
        &mut self,
        directory: &str,
        user: User,
    ) -> Result<(), ContainerError> {
        let refused = |problem| ContainerError::WorkingDirectory {
            directory: directory.to_owned(),
            problem,
        };
        if !directory.starts_with('/') {
            return Err(refused("is not an absolute path"));
        }
        if directory.split('/').any(|part| part == "..") {
            return Err(refused("has a \"..\" in it"));
        }
        let path = components(directory.as_bytes());
        let walked = self.tree.walk(path, Missing::Make, 0);
        let walked = walked.map_err(|_| refused("is not a directory"))?;
        let can_enter = |id: &NodeId| may_enter(self.tree.node(*id), user);
        match walked.directories().iter().all(can_enter) {
            true => Ok(()),
            false => Err(refused("cannot be entered by the tools' user")),
        }
    }

    /// Adds the directory `name` with `mode` at the root, unless it exists.
    pub(super) fn mount_point(
        &mut self,
        name: &'static str,
        mode: u16,
    ) -> Result<(), ContainerError> {
        match self.tree.name(Tree::ROOT, name.as_bytes()) {
            None => {
                let made = self.tree.add(Node {
                    attributes: Attributes::of_implied_directory(mode),
                    body: Body::Directory(BTreeMap::new()),
                });
                self.tree.put(Tree::ROOT, name.as_bytes(), made, 0);
                Ok(())
            }
            Some(there) => match self.tree.node(there.file).body {
                Body::Directory(_) => Ok(()),
                _ => Err(ContainerError::MountPoint { name }),
            },
        }
    }
}

fn may_enter(directory: &Node, user: User) -> bool {
    let Attributes {
        mode,
        user: owner,
        group,
        ..
    } = directory.attributes;
    let bit = if owner == user.uid {
        0o100
    } else if group == user.gid {
        0o010
    } else {
        0o001
    };
    mode & bit != 0
}

fn fields(line: &str) -> Vec<&str> {
    line.split(':').collect()
}

/// Parses the number of a user or a group. 4294967295 is invalid, because Linux uses it for no user.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .filter(|&number| number != u32::MAX)
}
