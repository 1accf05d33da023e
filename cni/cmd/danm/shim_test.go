package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"danm.io/danm/cni/wire"
	"github.com/containernetworking/cni/pkg/types"
)

func invoke(env map[string]string, stdin io.Reader) (code int, out string) {
	var b bytes.Buffer
	code = run(options{getenv: func(k string) string { return env[k] }, stdin: stdin, stdout: &b, wait: 20 * time.Millisecond, limit: 5 * time.Second})
	return code, b.String()
}

func addEnv(command string) map[string]string {
	return map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/proc/self/ns/net", "CNI_IFNAME": "eth0", "CNI_ARGS": "A=B", "CNI_PATH": "/p"}
}

func TestVersionIsAnsweredAlone(t *testing.T) {
	for asked, want := range map[string]string{`{"cniVersion":"0.4.0"}`: "0.4.0", `{"cniVersion":"9.9.9"}`: "1.1.0", `rubbish`: "1.1.0", ``: "1.1.0"} {
		code, out := invoke(map[string]string{"CNI_COMMAND": "VERSION"}, strings.NewReader(asked))
		var got struct {
			CNIVersion        string
			SupportedVersions []string
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 {
			t.Fatalf("%q: exit %d, %v", asked, code, err)
		}
		if got.CNIVersion != want || strings.Join(got.SupportedVersions, " ") != "0.3.1 0.4.0 1.0.0 1.1.0" {
			t.Errorf("%q: %+v", asked, got)
		}
	}
}

func TestBadCallsAreRefusedBeforeTheAgent(t *testing.T) {
	without := func(name string) map[string]string {
		env := addEnv("ADD")
		delete(env, name)
		return env
	}
	fifo := filepath.Join(t.TempDir(), "missing")
	rows := []struct {
		name, stdin string
		env         map[string]string
		code        uint
		text        string
	}{
		{"no command", `{}`, map[string]string{}, types.ErrInvalidEnvironmentVariables, "CNI_COMMAND"},
		{"unknown command", `{}`, map[string]string{"CNI_COMMAND": "add"}, types.ErrInvalidEnvironmentVariables, "add"},
		{"no container", `{}`, without("CNI_CONTAINERID"), types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID"},
		{"no netns", `{}`, without("CNI_NETNS"), types.ErrInvalidEnvironmentVariables, "CNI_NETNS"},
		{"no ifname", `{}`, without("CNI_IFNAME"), types.ErrInvalidEnvironmentVariables, "CNI_IFNAME"},
		{"broken conf", `{`, addEnv("ADD"), types.ErrDecodingFailure, "ConfInvalid"},
		{"empty conf", ``, addEnv("ADD"), types.ErrDecodingFailure, "ConfInvalid"},
		{"conf over 1 MiB", `{"cniVersion":"1.0.0","name":"n","x":"` + strings.Repeat("x", 1<<20) + `"}`, addEnv("ADD"), types.ErrInvalidNetworkConfig, "1 MiB"},
		{"no version", `{"name":"n"}`, addEnv("ADD"), types.ErrIncompatibleCNIVersion, "0.3.1"},
		{"old version", `{"cniVersion":"0.2.0","name":"n"}`, addEnv("ADD"), types.ErrIncompatibleCNIVersion, "0.2.0"},
		{"no name", `{"cniVersion":"1.0.0"}`, addEnv("ADD"), types.ErrInvalidNetworkConfig, "name"},
		{"relative socket", `{"cniVersion":"1.0.0","name":"n","socket":"run/cni.sock"}`, addEnv("ADD"), types.ErrInvalidNetworkConfig, "ConfSocketRelative"},
		{"netns missing", `{"cniVersion":"1.0.0","name":"n","socket":"/x"}`, func() map[string]string { e := addEnv("ADD"); e["CNI_NETNS"] = fifo; return e }(), types.ErrInvalidNetNS, "PodNetnsInvalid"},
		{"agent away", `{"cniVersion":"1.0.0","name":"n","socket":"/nowhere/s"}`, addEnv("ADD"), types.ErrTryAgainLater, "does not answer"},
		{"agent away, DEL", `{"cniVersion":"1.0.0","name":"n","socket":"/nowhere/s"}`, addEnv("DEL"), types.ErrTryAgainLater, "does not answer"},
		{"agent away, STATUS", `{"cniVersion":"1.1.0","name":"n","socket":"/nowhere/s"}`, addEnv("STATUS"), types.ErrPluginNotAvailable, "does not answer"},
	}
	for _, r := range rows {
		code, out := invoke(r.env, strings.NewReader(r.stdin))
		var got types.Error
		if err := json.Unmarshal([]byte(out), &got); err != nil || code != 1 {
			t.Fatalf("%s: exit %d, %v: %s", r.name, code, err, out)
		}
		if got.Code != r.code || !strings.Contains(out, r.text) || !strings.Contains(out, `"cniVersion"`) {
			t.Errorf("%s: want code %d with %q, got %s", r.name, r.code, r.text, out)
		}
	}
}

// A socket that an agent touched a moment ago stands for an agent that is being restarted.
func TestStatusForgivesARestart(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	conf := `{"cniVersion":"1.1.0","name":"n","socket":"` + socket + `"}`
	if code, out := invoke(addEnv("STATUS"), strings.NewReader(conf)); code != 0 || out != "" {
		t.Errorf("fresh: exit %d %s", code, out)
	}
	old := time.Now().Add(-wire.AliveFor - time.Second)
	if err := os.Chtimes(socket, old, old); err != nil {
		t.Fatal(err)
	}
	if code, out := invoke(addEnv("STATUS"), strings.NewReader(conf)); code != 1 || !strings.Contains(out, `"code": 50`) {
		t.Errorf("old: exit %d %s", code, out)
	}
	if code, _ := invoke(addEnv("ADD"), strings.NewReader(conf)); code != 1 {
		t.Error("ADD succeeds without an agent")
	}
}

func TestCallIsHandedOver(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type seen struct {
		req  wire.Request
		file bool
	}
	calls := make(chan seen, 1)
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			req, f, err := wire.ReadRequest(conn)
			if err == nil && f != nil {
				f.Close()
			}
			resp := wire.Response{Result: []byte("printed as it is")}
			if strings.Contains(string(req.Stdin), "fail") {
				resp.Error = types.NewError(103, "taken", "PodAddressTaken")
			}
			calls <- seen{req, f != nil}
			_ = wire.WriteResponse(conn, resp)
			conn.Close()
		}
	}()
	conf := `{"cniVersion":"0.4.0","name":"n","type":"danm","socket":"` + socket + `","kubeconfig":"x","unknown":[1]}`
	code, out := invoke(addEnv("ADD"), strings.NewReader(conf))
	got := <-calls
	if code != 0 || out != "printed as it is" || !got.file || string(got.req.Stdin) != conf || got.req.Args != "A=B" ||
		got.req.IfName != "eth0" || got.req.ContainerID != "c1" || got.req.Netns != "/proc/self/ns/net" || got.req.Path != "/p" {
		t.Errorf("exit %d %q, agent saw %+v", code, out, got)
	}
	gone := addEnv("DEL")
	gone["CNI_NETNS"] = "/nowhere"
	if code, _ := invoke(gone, strings.NewReader(conf)); code != 0 || (<-calls).file {
		t.Errorf("DEL without its netns: exit %d", code)
	}
	code, out = invoke(addEnv("ADD"), strings.NewReader(strings.Replace(conf, `"x"`, `"fail"`, 1)))
	<-calls
	var e types.Error
	if err := json.Unmarshal([]byte(out), &e); err != nil || code != 1 || e.Code != 103 || e.Details != "PodAddressTaken" || !strings.Contains(out, `"cniVersion": "0.4.0"`) {
		t.Errorf("exit %d %s", code, out)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// A result that did not reach the runtime must not look like a success.
func TestUnprintedResultFails(t *testing.T) {
	if code := run(options{getenv: func(string) string { return "VERSION" }, stdin: strings.NewReader(""), stdout: brokenPipe{}}); code != 1 {
		t.Errorf("exit %d", code)
	}
}

// Each Pod's start pays for the shim's size and for what it links (design, section 10).
func TestShimStaysThin(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go tool in PATH")
	}
	deps, err := exec.Command(goTool, "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.FieldsSeq(string(deps)) {
		for _, bad := range []string{"k8s.io/", "github.com/vishvananda/", "net/http", "github.com/containernetworking/cni/pkg/skel", "crypto/tls", "text/template", "flag"} {
			if dep == bad || strings.HasSuffix(bad, "/") && strings.HasPrefix(dep, bad) {
				t.Errorf("links %s", dep)
			}
		}
	}
	bin := filepath.Join(t.TempDir(), "danm")
	build := exec.Command(goTool, "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(bin)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 3_000_000 {
		t.Errorf("%d bytes, at most 3,000,000", info.Size())
	}
	cmd := exec.Command(bin)
	cmd.Env, cmd.Stdin = []string{"CNI_COMMAND=VERSION"}, strings.NewReader(`{"cniVersion":"1.0.0"}`)
	if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), `"cniVersion":"1.0.0"`) {
		t.Errorf("VERSION: %v %s", err, out)
	}
}
