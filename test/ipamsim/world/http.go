package world

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Store is a way to a world: a Client, or from another process a Remote.
type Store interface {
	Get(ctx context.Context, kind, namespace, name string) (Object, error)
	List(ctx context.Context, kind string, labels map[string]string) ([]Object, string, error)
	Create(ctx context.Context, o Object) (Object, error)
	Update(ctx context.Context, o Object) (Object, error)
	UpdateStatus(ctx context.Context, o Object) (Object, error)
	Delete(ctx context.Context, kind, namespace, name string, pre Preconditions) error
}

var (
	_ Store = (*Client)(nil)
	_ Store = (*Remote)(nil)
)

// The wire is not the API server's: one path, one JSON object each way.
type request struct {
	Verb, Kind, Namespace, Name string
	Labels                      map[string]string
	Object                      json.RawMessage
	Pre                         Preconditions
}

type response struct {
	Objects []json.RawMessage
	Version string
	Error   string
	Status  *metav1.Status // if the error is one of the API server
}

// Handler serves a Store to Remotes.
func Handler(s Store) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in request
		out := response{}
		err := json.NewDecoder(r.Body).Decode(&in)
		if err == nil {
			err = out.serve(r.Context(), s, in)
		}
		if err != nil {
			out = response{Error: err.Error()}
			if api := apierrors.APIStatus(nil); errors.As(err, &api) {
				status := api.Status()
				out.Status = &status
			}
		}
		_ = json.NewEncoder(w).Encode(out) // who asked is gone if this fails
	})
}

func (out *response) serve(ctx context.Context, s Store, in request) (err error) {
	k, ok := kinds[in.Kind]
	if !ok {
		return apierrors.NewBadRequest("no kind " + in.Kind)
	}
	var list []Object
	var o Object
	switch in.Verb {
	case "get":
		o, err = s.Get(ctx, in.Kind, in.Namespace, in.Name)
	case "list":
		list, out.Version, err = s.List(ctx, in.Kind, in.Labels)
	case "delete":
		return s.Delete(ctx, in.Kind, in.Namespace, in.Name, in.Pre)
	default:
		write, ok := map[string]func(context.Context, Object) (Object, error){"create": s.Create, "update": s.Update, "status": s.UpdateStatus}[in.Verb]
		if !ok {
			return apierrors.NewBadRequest("no verb " + in.Verb)
		}
		o = k.new()
		if err := json.Unmarshal(in.Object, o); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		o, err = write(ctx, o)
	}
	if err == nil && o != nil {
		list = []Object{o}
	}
	for _, o := range list {
		data, err := json.Marshal(o)
		if err != nil {
			return err
		}
		out.Objects = append(out.Objects, data)
	}
	return err
}

// Remote is a Store of another process.
type Remote struct {
	HTTP *http.Client
	URL  string
}

func (r *Remote) call(ctx context.Context, in request) (objects []Object, version string, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, bytes.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	resp, err := r.HTTP.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	var out response
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	switch {
	case out.Status != nil:
		return nil, "", &apierrors.StatusError{ErrStatus: *out.Status}
	case out.Error != "":
		return nil, "", errors.New(out.Error)
	}
	for _, data := range out.Objects {
		o := kinds[in.Kind].new()
		if err := json.Unmarshal(data, o); err != nil {
			return nil, "", err
		}
		objects = append(objects, o)
	}
	return objects, out.Version, nil
}

func (r *Remote) one(ctx context.Context, in request) (Object, error) {
	list, _, err := r.call(ctx, in)
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("%d objects instead of one", len(list))
	}
	return list[0], nil
}

func (r *Remote) write(ctx context.Context, verb string, o Object) (Object, error) {
	k, err := kindOf(o)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	return r.one(ctx, request{Verb: verb, Kind: k.gvk.Kind, Object: data})
}

// Get reads one object.
func (r *Remote) Get(ctx context.Context, kind, namespace, name string) (Object, error) {
	return r.one(ctx, request{Verb: "get", Kind: kind, Namespace: namespace, Name: name})
}

// List reads those that have all of the labels, and the version of the list.
func (r *Remote) List(ctx context.Context, kind string, labels map[string]string) ([]Object, string, error) {
	return r.call(ctx, request{Verb: "list", Kind: kind, Labels: labels})
}

// Create makes an object that is not there.
func (r *Remote) Create(ctx context.Context, o Object) (Object, error) {
	return r.write(ctx, "create", o)
}

// Update replaces metadata and spec.
func (r *Remote) Update(ctx context.Context, o Object) (Object, error) {
	return r.write(ctx, "update", o)
}

// UpdateStatus replaces the status.
func (r *Remote) UpdateStatus(ctx context.Context, o Object) (Object, error) {
	return r.write(ctx, "status", o)
}

// Delete removes an object, or marks it.
func (r *Remote) Delete(ctx context.Context, kind, namespace, name string, pre Preconditions) error {
	_, _, err := r.call(ctx, request{Verb: "delete", Kind: kind, Namespace: namespace, Name: name, Pre: pre})
	return err
}
