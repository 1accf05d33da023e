package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

const module = "danm.io/danm"

// violation is one import, or one call, that the table forbids.
type violation struct{ Rule, File, What string }

func (v violation) String() string { return fmt.Sprintf("%s: %s [%s]", v.File, v.What, v.Rule) }

// covers says whether dir is pattern, or lies in the tree "x/..." ("..." alone is everything of ours).
func covers(pattern, dir string) bool {
	if pattern == "..." {
		return true
	}
	if root, isTree := strings.CutSuffix(pattern, "/..."); isTree {
		return dir == root || strings.HasPrefix(dir, root+"/")
	}
	return pattern == dir
}

// rowFor finds the row that speaks about dir: the longest pattern that covers it.
func rowFor(rows []row, dir string) (row, bool) {
	best, found := row{}, false
	for _, r := range rows {
		if covers(r.Room, dir) && (!found || len(r.Room) > len(best.Room)) {
			best, found = r, true
		}
	}
	return best, found
}

// check reads every non-test Go file of the tree and returns what the table forbids, and which rows spoke about a file.
func check(tree fs.FS, rows []row) (bad []violation, used map[string]bool, err error) {
	used = map[string]bool{}
	err = fs.WalkDir(tree, ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name == "testdata" || name == "bin" || (strings.HasPrefix(name, ".") && file != ".") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		src, err := fs.ReadFile(tree, file)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, src, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(file)
		r, ok := rowFor(rows, dir)
		if !ok {
			bad = append(bad, violation{"unlisted", file, "room " + dir + " has no row in the import table"})
			return nil
		}
		used[r.Name] = true
		bad = append(bad, checkImports(r, dir, file, parsed)...)
		bad = append(bad, checkListCalls(dir, file, parsed)...)
		return nil
	})
	return bad, used, err
}

func checkImports(r row, dir, file string, parsed *ast.File) (bad []violation) {
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		ours, isOurs := strings.CutPrefix(imported, module+"/")
		switch {
		case isOurs && ours != dir && !slices.ContainsFunc(r.May, func(p string) bool { return covers(p, ours) }):
			bad = append(bad, violation{r.Name, file, fmt.Sprintf("imports %s; %s: %s", ours, r.Room, r.Reason)})
		case !isOurs && slices.ContainsFunc(r.Never, func(p string) bool {
			return imported == p || strings.HasPrefix(imported, p+"/") && strings.Contains(p, ".")
		}):
			bad = append(bad, violation{r.Name, file, fmt.Sprintf("imports %s; %s: %s", imported, r.Room, r.Reason)})
		}
	}
	return bad
}

func checkListCalls(dir, file string, parsed *ast.File) (bad []violation) {
	if listRooms[dir] || strings.HasPrefix(dir, "test/") {
		return nil
	}
	names := slices.ContainsFunc(parsed.Imports, func(s *ast.ImportSpec) bool {
		return s.Path.Value == `"github.com/vishvananda/netlink"`
	})
	if !names {
		return nil
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && listCalls[sel.Sel.Name] {
			bad = append(bad, violation{"netlink-lists", file, "names netlink's " + sel.Sel.Name + "; only node/link and node/sriov may, they retry interrupted dumps"})
		}
		return true
	})
	return bad
}
