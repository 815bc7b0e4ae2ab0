//! Writes the matrix in the documentation of `compat`.

use chv_sandbox::compat::{Cell, Matrix};
use chv_sandbox::replay::Cassette;
use chv_sandbox::spec::{Contract, Release, supported};

use super::{assert_fresh, cassettes};

fn matrix() -> Matrix {
    let contracts: Vec<Contract> = supported::releases()
        .filter_map(supported::contract)
        .collect();
    let cassettes: Vec<Cassette> = cassettes()
        .into_iter()
        .map(|(_, cassette)| cassette)
        .collect();
    Matrix::new(&contracts, &cassettes)
}

#[test]
fn the_matrix_is_fresh() {
    let matrix = matrix().markdown();
    assert_fresh("src/compat/matrix.md", &matrix);
}

#[test]
fn a_cell_says_whether_a_release_has_the_call() {
    let matrix = matrix();
    let check = |row: &str, release: &str, expected: Cell| {
        let release: Release = release.parse().unwrap();
        let column = matrix
            .releases
            .iter()
            .position(|known| *known == release)
            .unwrap();
        let mut rows = matrix.features.iter().chain(&matrix.endpoints);
        let row = rows.find(|known| known.name.contains(row)).unwrap();
        assert_eq!(row.cells[column], expected, "{} of {release}", row.name);
    };
    check("reset in place", "v53.0", Cell::Observed);
    check("vsock", "v53.0", Cell::Observed);
    check("`vm.info`", "v51.2", Cell::Observed);
    // The document has the path /vmm.nmi; the server serves /vm.nmi.
    check("`vm.nmi`", "v52.0", Cell::Observed);
    // The server ignores the field and answers 204, so this exchange must not count.
    check("`resume` with", "v51.2", Cell::Absent);
    check("on demand", "v51.2", Cell::Absent);
    check("`vm.resize-disk`", "v48.0", Cell::Absent);
    check("`vm.add-generic-vhost-user`", "v51.2", Cell::Absent);
    check("migration with post-copy", "v53.0", Cell::Document);
    check("migration with post-copy", "v52.0", Cell::Absent);
    check("Landlock", "v44.0", Cell::Document);
}
