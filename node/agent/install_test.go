package agent

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// program is a shell script that says text; big enough that writing it takes a moment.
func program(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	must(t, os.WriteFile(path, []byte("#!/bin/sh\necho "+text+"\nexit 0\n"+strings.Repeat("# "+text+"\n", 1<<18)), 0o600))
	return path
}

func says(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command(path).CombinedOutput()
	if err != nil {
		t.Fatalf("%s does not run: %v\n%s", path, err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestInstallHelper is the process that TestInstallKilled kills.
func TestInstallHelper(t *testing.T) {
	from, to, ok := strings.Cut(os.Getenv("DANM_TEST_INSTALL"), ":")
	if !ok {
		return // it is called with something to do by another test
	}
	if _, err := Install(from, to); err != nil {
		t.Fatal(err)
	}
}

// TestInstallKilled: kill -9 at any moment leaves the old or the new program, whole and executable, and the next installation leaves
// nothing else.
func TestInstallKilled(t *testing.T) {
	dir, bin := t.TempDir(), t.TempDir()
	path := filepath.Join(bin, "danm")
	versions := []string{program(t, dir, "one", "one"), program(t, dir, "two", "two")}
	_, err := Install(versions[0], path)
	must(t, err)
	whole := map[string]string{}
	for i, v := range versions {
		b, err := os.ReadFile(v)
		must(t, err)
		whole[string(b)] = []string{"one", "two"}[i]
	}
	killed, leftovers, seen := 0, 0, map[string]int{}
	install := func(i int) *exec.Cmd {
		cmd := exec.Command(os.Args[0], "-test.run=^TestInstallHelper$")
		cmd.Env = append(os.Environ(), "DANM_TEST_INSTALL="+versions[(i+1)%2]+":"+path)
		return cmd
	}
	undisturbed := time.Now() // a program under the race detector takes its time to start
	must(t, install(1).Run())
	longest := time.Since(undisturbed)
	rounds := 0
	for i := 0; i < 30 || i < 300 && (killed < 5 || len(seen) != 2); i++ {
		rounds++
		cmd := install(i)
		start := time.Now()
		must(t, cmd.Start())
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case <-time.After(rand.N(2 * longest)):
			_ = cmd.Process.Kill()
			<-done
			killed++
			longest += longest / 8 // the machine may have become slower: not all are to be killed too early
		case <-done:
			longest = max(5*time.Millisecond, time.Since(start))
		}
		got, err := os.ReadFile(path)
		must(t, err)
		text, ok := whole[string(got)]
		info, err := os.Stat(path)
		must(t, err)
		if !ok || info.Mode() != 0o755 {
			t.Fatalf("round %d: %d bytes of neither, mode %v", i, len(got), info.Mode())
		}
		seen[text]++
		left, err := os.ReadDir(bin)
		must(t, err)
		leftovers += len(left) - 1
	}
	_, err = Install(versions[1], path)
	must(t, err)
	if left, _ := os.ReadDir(bin); len(left) != 1 || says(t, path) != "two" {
		t.Errorf("left %v", left)
	}
	t.Logf("%d of %d killed, %d times a file was left over, found %v", killed, rounds, leftovers, seen)
	if killed < 5 || len(seen) != 2 {
		t.Errorf("control: %d killed, found %v", killed, seen)
	}
}

// TestInstallInUse: a program that runs is replaced, without ETXTBSY, and goes on as what it was.
func TestInstallInUse(t *testing.T) {
	bin := t.TempDir()
	sleep, err := exec.LookPath("sleep")
	must(t, err)
	sleep, err = filepath.EvalSymlinks(sleep)
	must(t, err)
	path := filepath.Join(bin, "sleep")
	_, err = Install(sleep, path)
	must(t, err)
	cmd := exec.Command(path, "60")
	must(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if err := os.WriteFile(path, []byte("x"), 0o600); err == nil {
		t.Fatal("control: a running program could be written to")
	}
	before, err := os.ReadFile(path)
	must(t, err)
	_, err = Install(program(t, t.TempDir(), "new", "new"), path)
	must(t, err)
	if says(t, path) != "new" {
		t.Error("not replaced")
	}
	running, err := os.ReadFile(fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid))
	if err != nil || !bytes.Equal(running, before) {
		t.Errorf("the running program changed: %v", err)
	}
}

// TestInstallTouchesOnlyItsOwn: links, other files and what cannot be a program stay; a wrong mode is mended.
func TestInstallTouchesOnlyItsOwn(t *testing.T) {
	dir, bin := t.TempDir(), t.TempDir()
	from := program(t, dir, "danm", "new")
	path := filepath.Join(bin, "danm")
	others := []string{"danm.new", "danm.tmp", "macvlan", ".danm.swp"}
	for _, name := range others {
		must(t, os.WriteFile(filepath.Join(bin, name), []byte(name), 0o600))
	}
	target := filepath.Join(dir, "elsewhere")
	must(t, os.WriteFile(target, []byte("elsewhere"), 0o600))
	must(t, os.Symlink(target, path))
	must(t, os.WriteFile(filepath.Join(bin, ".danm.new-123"), []byte("half"), 0o600)) // of an installation that was killed
	changed, err := Install(from, path)
	must(t, err)
	info, err := os.Lstat(path)
	must(t, err)
	if b, _ := os.ReadFile(target); !changed || info.Mode() != 0o755 || string(b) != "elsewhere" {
		t.Errorf("the link: mode %v, its target %q", info.Mode(), b)
	}
	for _, name := range others {
		if b, err := os.ReadFile(filepath.Join(bin, name)); err != nil || string(b) != name {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(bin, ".danm.new-123")); err == nil {
		t.Error("a left-over stays for ever")
	}
	must(t, os.Chmod(path, 0o600))
	if changed, err := Install(from, path); err != nil || !changed || says(t, path) != "new" {
		t.Errorf("a program nobody may run is left: %v", err)
	}
	if changed, err := Install(from, path); err != nil || changed {
		t.Errorf("the same again is a change: %v", err)
	}
	must(t, os.Mkdir(filepath.Join(bin, "folder"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600))
	for from, to := range map[string]string{from: filepath.Join(bin, "folder"), filepath.Join(dir, "empty"): path, filepath.Join(dir, "none"): path, dir: path} {
		if _, err := Install(from, to); err == nil {
			t.Errorf("%s installed as %s", from, to)
		}
	}
	if info, err := os.Stat(filepath.Join(bin, "folder")); err != nil || !info.IsDir() || says(t, path) != "new" {
		t.Error("a refused installation changed something")
	}
}

// TestInstallBesideAnother: the file that another installation is writing is not taken for a left-over.
func TestInstallBesideAnother(t *testing.T) {
	bin := t.TempDir()
	path := filepath.Join(bin, "danm")
	from := program(t, t.TempDir(), "danm", "x")
	done := make(chan error)
	for range 4 {
		go func() {
			var err error
			for range 10 {
				if _, e := Install(from, path); e != nil {
					err = e
				}
				_ = os.Chmod(path, fs.FileMode(0o600)) // so that the next one has something to do
			}
			done <- err
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if left, _ := os.ReadDir(bin); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}
