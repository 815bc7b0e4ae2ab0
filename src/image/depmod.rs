//! [`Lists`]: the lists of a kernel's modules in its `lib/modules/VERSION`. depmod makes `modules.dep`, and the
//! kernel's build makes `modules.builtin` (formats: modules.dep(5)).

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{self, Component, Path, PathBuf},
};

use super::{
    Error,
    input::{self, MIB},
};

const MODULES_DEP: &str = "modules.dep";
const MODULES_BUILTIN: &str = "modules.builtin";
const LIST_LIMIT: u64 = 16 * MIB;

/// The lists of one kernel.
pub(super) struct Lists {
    /// For each module name: the module's file, then the files of all modules that it depends on, in the order of
    /// `modules.dep`.
    files: HashMap<String, Vec<PathBuf>>,
    /// The names of the built-in modules; `None` without a `modules.builtin`.
    builtin: Option<HashSet<String>>,
}

impl Lists {
    /// Reads the lists in `dir`. As with modprobe, `modules.builtin` may be missing, and the first of several lines for
    /// one module counts.
    pub(super) fn read(dir: &Path) -> Result<Lists, Error> {
        fs::read_dir(dir).map_err(Error::io("read the directory of modules", dir))?;
        let path = dir.join(MODULES_DEP);
        let list = read_list(&path)?.ok_or_else(|| Error::ModuleList {
            path: path.clone(),
            problem: format!(
                "it does not exist; depmod makes it: `{}`",
                depmod_command(dir)
            ),
        })?;
        let builtin = read_list(&dir.join(MODULES_BUILTIN))?;
        Lists::parse(&Folder::new(dir), &path, &list, builtin.as_deref())
    }

    /// Parses the text of `modules.dep`, which was read from `path`, and the text of `modules.builtin`.
    fn parse(
        folder: &Folder,
        path: &Path,
        list: &str,
        builtin: Option<&str>,
    ) -> Result<Lists, Error> {
        let mut files = HashMap::new();
        for (number, line) in lines(list) {
            let unusable = |problem: String| Error::ModuleList {
                path: path.to_owned(),
                problem: format!("line {number} {problem}"),
            };
            let (file, dependencies) = line
                .split_once(':')
                .ok_or_else(|| unusable(format!("has no colon: {line:.80}")))?;
            let of_module = std::iter::once(file.trim_end())
                .chain(dependencies.split_whitespace())
                .map(|file| {
                    folder.inside(Path::new(file)).ok_or_else(|| {
                        unusable(format!(
                            "names {file:?}, which is not a file inside the directory"
                        ))
                    })
                })
                .collect::<Result<Vec<_>, _>>()?;
            files.entry(module_name(&of_module[0])).or_insert(of_module);
        }
        let builtin = builtin.map(|list| {
            lines(list)
                .map(|(_, line)| module_name(Path::new(line)))
                .collect()
        });
        Ok(Lists { files, builtin })
    }

    /// The files of a module and of all modules that it depends on, relative to the directory; `None` if the module
    /// isn't listed.
    pub(super) fn files(&self, name: &str) -> Option<&[PathBuf]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// Whether a module is listed as built into the kernel.
    pub(super) fn is_builtin(&self, name: &str) -> bool {
        self.builtin
            .as_ref()
            .is_some_and(|builtin| builtin.contains(name))
    }

    /// Whether there is a `modules.builtin`.
    pub(super) fn knows_builtin(&self) -> bool {
        self.builtin.is_some()
    }
}

/// The lines that are neither empty nor comments, trimmed, with their numbers.
fn lines(list: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(list.lines().map(str::trim))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// The text of a list; `None` if the file doesn't exist.
fn read_list(path: &Path) -> Result<Option<String>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let text = String::from_utf8(input::read(path, LIST_LIMIT)?);
    text.map(Some).map_err(|_| Error::ModuleList {
        path: path.into(),
        problem: "it is not UTF-8".to_owned(),
    })
}

/// The directory of modules, with all names under which absolute paths may refer to it.
struct Folder {
    names: Vec<PathBuf>,
}

impl Folder {
    fn new(dir: &Path) -> Folder {
        let mut names: Vec<PathBuf> = [path::absolute(dir), dir.canonicalize()]
            .into_iter()
            .flatten()
            .collect();
        // The place where it will be installed: lists that were made for another root name this place.
        let versions: Vec<_> = names
            .iter()
            .filter_map(|name| name.file_name().map(ToOwned::to_owned))
            .collect();
        for version in versions {
            for modules in ["/lib/modules", "/usr/lib/modules"] {
                names.push(Path::new(modules).join(&version));
            }
        }
        Folder { names }
    }

    /// The path of a listed file relative to the directory; `None` if it lies outside.
    fn inside(&self, file: &Path) -> Option<PathBuf> {
        let relative = if file.is_absolute() {
            self.names
                .iter()
                .find_map(|name| file.strip_prefix(name).ok())?
        } else {
            file
        };
        let mut clean = PathBuf::new();
        for component in relative.components() {
            match component {
                Component::Normal(name) => clean.push(name),
                Component::CurDir => {}
                Component::ParentDir if clean.pop() => {}
                _ => return None,
            }
        }
        clean.file_name().is_some().then_some(clean)
    }
}

/// The command that makes `modules.dep` in `dir`.
fn depmod_command(dir: &Path) -> String {
    let resolved = dir.canonicalize().unwrap_or_else(|_| dir.into());
    let root = resolved
        .parent()
        .filter(|modules| modules.ends_with("lib/modules"))
        .and_then(|modules| modules.ancestors().nth(2));
    match (root, resolved.file_name()) {
        (Some(root), Some(version)) => {
            format!("depmod -b {} {}", root.display(), version.display())
        }
        _ => "depmod -b ROOT VERSION` for modules in `ROOT/lib/modules/VERSION".to_owned(),
    }
}

/// The kernel's name of a module's file: without directory and suffixes, with underscores for hyphens.
pub(super) fn module_name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.find(".ko").map_or(&*name, |at| &name[..at]);
    stem.replace('-', "_")
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz {
    //! Fuzz target.

    use super::*;

    /// Parses a `modules.dep`, and checks that no listed file lies outside the directory.
    pub(crate) fn modules_dep(bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        let folder = Folder::new(Path::new("/lib/modules/6.1.0"));
        let Ok(lists) = Lists::parse(&folder, Path::new(MODULES_DEP), text, Some(text)) else {
            return;
        };
        for file in lists.files.values().flatten() {
            let plain = |component| matches!(component, Component::Normal(_));
            assert!(file.components().all(plain), "{}", file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dep: &str, builtin: Option<&str>) -> Result<Lists, Error> {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("lib/modules/6.1.0");
        fs::create_dir_all(&dir).expect("made");
        let dep = dep.replace("DIR", dir.to_str().expect("UTF-8"));
        fs::write(dir.join(MODULES_DEP), dep).expect("written");
        if let Some(builtin) = builtin {
            fs::write(dir.join(MODULES_BUILTIN), builtin).expect("written");
        }
        Lists::read(&dir)
    }

    fn files(dep: &str, name: &str) -> Vec<String> {
        let lists = read(dep, None).expect("usable");
        let files = lists.files(name).expect("a module");
        files
            .iter()
            .map(|file| file.display().to_string())
            .collect()
    }

    #[test]
    fn a_line_names_a_module_and_what_it_needs() {
        let check = |dep: &str| assert_eq!(files(dep, "a_b"), ["k/a-b.ko.xz", "k/c.ko"], "{dep}");
        check("k/a-b.ko.xz: k/c.ko\n");
        check("k/a-b.ko.xz: k/c.ko");
        check("k/a-b.ko.xz:   k/c.ko \t \n");
        check("  k/a-b.ko.xz : k/c.ko\r\n\r\n");
        check("\n# made by hand\n\nk/a-b.ko.xz: k/c.ko\n  # the end\n");
        check("./k/a-b.ko.xz: ././k//c.ko\n");
        check("k/../k/a-b.ko.xz: k/x/../c.ko\n");
        check("/lib/modules/6.1.0/k/a-b.ko.xz: /usr/lib/modules/6.1.0/k/c.ko\n");
        check("DIR/k/a-b.ko.xz: DIR/./k/c.ko\n");
        // Of several lines the first counts.
        check("k/a-b.ko.xz: k/c.ko\nk/a-b.ko.xz: k/c.ko\n");
        check("k/a-b.ko.xz: k/c.ko\nupdates/a_b.ko:\n");
    }

    #[test]
    fn a_file_outside_the_directory_is_refused() {
        let check = |dep: &str, line: &str, file: &str| {
            let error = read(dep, None).err().expect("must fail").to_string();
            for part in ["modules.dep", line, &format!("{file:?}"), "inside"] {
                assert!(error.contains(part), "{part} is not in: {error}");
            }
        };
        check("../a.ko:", "line 1", "../a.ko");
        check("a.ko:\n\nb.ko: k/../../c.ko", "line 3", "k/../../c.ko");
        check("/a.ko:", "line 1", "/a.ko");
        check(
            "/lib/modules/6.1.1/a.ko:",
            "line 1",
            "/lib/modules/6.1.1/a.ko",
        );
        check(": a.ko", "line 1", "");
        check("./: a.ko", "line 1", "./");
    }

    #[test]
    fn a_line_without_a_colon_is_refused() {
        let error = read("a.ko:\nb.ko", None).err().expect("must fail");
        assert!(
            error.to_string().contains("line 2 has no colon: b.ko"),
            "{error}"
        );
    }

    #[test]
    fn the_list_of_what_is_built_in_may_be_missing() {
        let lists = read("", None).expect("usable");
        assert!(!lists.knows_builtin() && !lists.is_builtin("ext4"));
        let lists =
            read("", Some("# comment\r\n\r\nkernel/fs/ext4/ext4.ko  \r\n")).expect("usable");
        assert!(lists.knows_builtin() && lists.is_builtin("ext4") && !lists.is_builtin("ext3"));
    }

    #[test]
    fn a_missing_list_says_how_it_is_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("there");
        let modules = root.join("lib/modules/6.1.0");
        fs::create_dir_all(&modules).expect("made");
        let error = |dir: &Path| Lists::read(dir).err().expect("must fail").to_string();
        let command = format!("`depmod -b {} 6.1.0`", root.display());
        assert!(error(&modules).contains(&command), "{}", error(&modules));
        assert!(
            error(&root).contains("`depmod -b ROOT VERSION`"),
            "{}",
            error(&root)
        );
        let none = root.join("none");
        assert!(
            error(&none).contains("directory of modules"),
            "{}",
            error(&none)
        );
    }
}
