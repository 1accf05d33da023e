package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"danm.io/danm/cni/wire"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
)

func invokeAs(name string, env map[string]string, stdin io.Reader) (code int, out string) {
	var b bytes.Buffer
	code = run(options{name: name, getenv: func(k string) string { return env[k] }, stdin: stdin, stdout: &b, wait: 20 * time.Millisecond, limit: 5 * time.Second})
	return code, b.String()
}

// fakeipam prints what it was given, in the version that it was asked in: the CNI project's own decoder says so.
func TestFakeIPAMEchoes(t *testing.T) {
	for _, version := range supported {
		for name, ipamType := range map[string]string{"fakeipam": "", "danm": "fakeipam"} {
			conf := `{"cniVersion":"` + version + `","name":"n","type":"macvlan","ipam":{"type":"` + ipamType + `","ips":[{"ipcidr":"10.0.0.5/24","version":4},{"ipcidr":"fd00::5/64","version":6}],"routes":[{"dst":"10.9.0.0/16","gw":"10.0.0.1"},{"dst":"fd09::/64"}]}}`
			code, out := invokeAs(name, addEnv("ADD"), strings.NewReader(conf))
			if code != 0 {
				t.Fatalf("%s %s: exit %d %s", name, version, code, out)
			}
			res, err := create.CreateFromBytes([]byte(out))
			if err != nil || res.Version() != version {
				t.Fatalf("%s: %v\n%s", version, err, out)
			}
			r, err := types100.NewResultFromResult(res)
			if err != nil || len(r.IPs) != 2 || r.IPs[0].Address.String() != "10.0.0.5/24" || r.IPs[1].Address.String() != "fd00::5/64" || len(r.Interfaces) != 0 ||
				len(r.Routes) != 2 || r.Routes[0].Dst.String() != "10.9.0.0/16" || r.Routes[0].GW.String() != "10.0.0.1" || r.Routes[1].GW != nil {
				t.Errorf("%s: %+v %v", version, r, err)
			}
			if strings.Contains(out, `"version": "4"`) != strings.HasPrefix(version, "0.") {
				t.Errorf("%s: families\n%s", version, out)
			}
		}
	}
}

func TestFakeIPAMRefuses(t *testing.T) {
	section := func(s string) string { return `{"cniVersion":"0.3.1","name":"n","type":"sriov","ipam":` + s + `}` }
	for conf, text := range map[string]string{
		section(`{"type":"fakeipam"}`):                                                                            "No IP was passed to fake IPAM",
		section(`{"type":"fakeipam","ips":[]}`):                                                                   "No IP was passed to fake IPAM",
		section(`{"type":"fakeipam","ips":[{"ipcidr":"10.0.0.5"}]}`):                                              "10.0.0.5",
		section(`{"type":"fakeipam","ips":[{"ipcidr":"none","version":4}]}`):                                      "none",
		section(`{"type":"fakeipam","ips":[{"ipcidr":"10.0.0.5/24","version":6}]}`):                               "10.0.0.5/24",
		section(`{"type":"fakeipam","ips":[{"ipcidr":"10.0.0.5/24"}],"routes":[{"dst":"all","gw":"10.0.0.1"}]}`):  "all",
		section(`{"type":"fakeipam","ips":[{"ipcidr":"10.0.0.5/24"}],"routes":[{"dst":"10.9.0.0/16","gw":"x"}]}`): "10.9.0.0/16",
		section(`{"type":"fakeipam","ips":7}`):                                                                    "decode ipam",
		`{"cniVersion":"0.3.1","name":"n"}`:                                                                       "No IP was passed to fake IPAM",
		`{"cniVersion":"0.2.0","name":"n"}`:                                                                       "0.2.0",
	} {
		code, out := invokeAs("fakeipam", addEnv("ADD"), strings.NewReader(conf))
		var e types.Error
		if err := json.Unmarshal([]byte(out), &e); err != nil || code != 1 || e.Code == 0 || !strings.Contains(out, text) {
			t.Errorf("%s: exit %d %s", conf, code, out)
		}
	}
	for _, command := range []string{"DEL", "CHECK", "STATUS", "GC"} {
		for _, conf := range []string{section(`{"type":"fakeipam"}`), `{"name":"n","ipam":{}}`} {
			if code, out := invokeAs("fakeipam", addEnv(command), strings.NewReader(conf)); code != 0 || out != "" {
				t.Errorf("%s: exit %d %s", command, code, out)
			}
		}
	}
	if code, out := invokeAs("fakeipam", addEnv("VERSION"), strings.NewReader(`{"cniVersion":"0.3.1"}`)); code != 0 || !strings.Contains(out, `"cniVersion":"0.3.1"`) {
		t.Errorf("VERSION: exit %d %s", code, out)
	}
	// danm's own configuration is never fakeipam's, whatever stands in it.
	if code, out := invokeAs("danm", addEnv("ADD"), strings.NewReader(`{"cniVersion":"1.0.0","name":"n","type":"danm","socket":"/nowhere/s","ipam":{"type":"fakeipam"}}`)); code != 1 || !strings.Contains(out, "/nowhere/s") {
		t.Errorf("exit %d %s", code, out)
	}
}

// As another plugin's IPAM the socket is the ipam section's; a key of that name beside it is the other plugin's.
func TestSocketOfTheIPAMSection(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			if _, f, err := wire.ReadRequest(conn); err == nil && f != nil {
				f.Close()
			}
			_ = wire.WriteResponse(conn, wire.Response{Result: []byte("answered")})
			conn.Close()
		}
	}()
	for conf, answered := range map[string]bool{
		`{"cniVersion":"1.0.0","name":"n","type":"macvlan","socket":"/nowhere/s","ipam":{"type":"danm","socket":"` + socket + `"}}`: true,
		`{"cniVersion":"1.0.0","name":"n","type":"macvlan","socket":"` + socket + `","ipam":{"type":"danm","socket":"/nowhere/s"}}`: false,
		`{"cniVersion":"1.0.0","name":"n","type":"danm","socket":"` + socket + `","ipam":{"type":"danm","socket":"/nowhere/s"}}`:    true,
		`{"cniVersion":"1.0.0","name":"n","type":"danm","socket":"` + socket + `","ipam":"a string"}`:                               true,
		`{"cniVersion":"1.0.0","name":"n","type":"macvlan","ipam":{"type":"danm","socket":"relative"}}`:                             false,
	} {
		code, out := invokeAs("danm", addEnv("ADD"), strings.NewReader(conf))
		if (code == 0 && out == "answered") != answered {
			t.Errorf("%s: exit %d %s", conf, code, out)
		}
	}
}
