// Package argocd runs Argo CD's health checks as Argo CD does: in a Lua engine without libraries that reach out, the object in the
// global obj, the answer a table of status and message. It knows nothing of what the answers should be.
package argocd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// Health runs a script over an object. The answer is one of Argo CD's: Healthy, Progressing, Degraded, Suspended.
func Health(script string, object any) (status, message string, err error) {
	text, err := os.ReadFile(script)
	if err != nil {
		return "", "", err
	}
	b, err := json.Marshal(object)
	if err != nil {
		return "", "", err
	}
	var value map[string]any
	if err := json.Unmarshal(b, &value); err != nil {
		return "", "", err
	}
	l := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	l.SetContext(ctx)
	for name, open := range map[string]lua.LGFunction{lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable, lua.StringLibName: lua.OpenString} {
		if err := l.CallByParam(lua.P{Fn: l.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return "", "", err
		}
	}
	l.SetGlobal("obj", toLua(l, value))
	if err := l.DoString(string(text)); err != nil {
		return "", "", fmt.Errorf("run %s: %w", script, err)
	}
	answer, ok := l.Get(-1).(*lua.LTable)
	if !ok {
		return "", "", fmt.Errorf("%s returns a %s, not a table", script, l.Get(-1).Type())
	}
	say := func(key string) string { return lua.LVAsString(answer.RawGetString(key)) }
	switch status = say("status"); status {
	case "Healthy", "Progressing", "Degraded", "Suspended":
		return status, say("message"), nil
	}
	return "", "", fmt.Errorf("%s returns the status %q, which Argo CD does not know", script, status)
}

func toLua(l *lua.LState, value any) lua.LValue {
	switch v := value.(type) {
	case map[string]any:
		t := l.NewTable()
		for key, item := range v {
			t.RawSetString(key, toLua(l, item))
		}
		return t
	case []any:
		t := l.NewTable()
		for _, item := range v {
			t.Append(toLua(l, item))
		}
		return t
	case string:
		return lua.LString(v)
	case bool:
		return lua.LBool(v)
	case float64:
		return lua.LNumber(v)
	}
	return lua.LNil
}
