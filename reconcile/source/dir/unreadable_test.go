package dir_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"danm.io/danm/reconcile/source/dir"
	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
	"golang.org/x/sys/unix"
)

// TestUnreadable: what is there and may not be read is called so, the directory as well as what is in it.
func TestUnreadable(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"closed/in/a.yaml": "kind: Bundle", "file/a.yaml": "kind: Bundle", "sub/in/a.yaml": "kind: Bundle", "good/a.yaml": "kind: Bundle", "linked/.in/a.yaml": "kind: Bundle"})
	link(t, ".in/a.yaml", filepath.Join(root, "linked/a.yaml")) // as a volume of a ConfigMap has it
	for path, mode := range map[string]os.FileMode{"closed": 0, "file/a.yaml": 0, "sub/in": 0, "linked/.in": 0, ".": 0o755, "..": 0o755} {
		if err := os.Chmod(filepath.Join(root, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, path := range []string{"closed", "sub/in", "linked/.in"} {
			_ = os.Chmod(filepath.Join(root, path), 0o755) // the directory has to go
		}
	})
	var unfit error
	is := asNobody(t, func() {
		if _, err := os.Stat(filepath.Join(root, "good")); err != nil {
			unfit = err // nobody else may come to the temporary directory
			return
		}
		for _, c := range []struct {
			path, sub string
			code      diag.Code
		}{
			{"closed", ".", diag.PathUnreadable}, {"closed/in", ".", diag.PathUnreadable}, {"file", ".", diag.PathUnreadable}, {"sub/in", ".", diag.PathUnreadable},
			{"closed", "in", diag.PathUnreadable}, {".", "closed/in", diag.PathUnreadable}, {".", "sub/in", diag.PathUnreadable}, {"linked", ".", diag.PathUnreadable},
			{"absent", ".", diag.PathNotFound}, {"good/a.yaml", ".", diag.PathNotFound}, {"good", "absent", diag.PathNotFound}, {"good", ".", ""},
		} {
			_, err := dir.New(filepath.Join(root, c.path), c.sub, snapshot.DefaultLimits()).Fetch(t.Context())
			var e *snapshot.Error
			if errors.As(err, &e) != (c.code != "") || e != nil && e.Code != c.code {
				t.Errorf("%s//%s: %v, want %q", c.path, c.sub, err, c.code)
			}
		}
	})
	if !is {
		t.Skip("there is no other user here")
	}
	if unfit != nil {
		t.Skip(unfit)
	}
}

const nobody = 65534

// asNobody runs f as a user to whom nothing belongs, for root may read everything. It says whether it could.
func asNobody(t *testing.T, f func()) bool {
	t.Helper()
	if os.Getuid() != 0 {
		f()
		return true
	}
	could := make(chan bool)
	go func() {
		runtime.LockOSThread() // the thread ends with this
		_, _ = unix.SetfsgidRetGid(nobody)
		_, _ = unix.SetfsuidRetUid(nobody)
		is, _ := unix.SetfsuidRetUid(-1) // which changes nothing, and tells
		if is == nobody {
			f()
		}
		could <- is == nobody
	}()
	return <-could
}
