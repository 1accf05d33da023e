package ipam

// Disk is the directory of a journal for programs that bring their own, such as a simulator: a write is durable after
// File.Sync, a name after Disk.Sync. A Disk with a method HadJournal() bool says whether a journal was ever made on it:
// then one that is gone is ErrCorrupt. It is used by one goroutine at a time.
type Disk interface {
	Open(name string) (File, error)
	Create(name string) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	List() ([]string, error)
	Sync() error
}

// File is an open file of a Disk.
type File interface{ file }

// DiskSizes are the bytes of a journal on a Disk; 0 = as on a real one.
type DiskSizes struct {
	Segment int64 // below which a segment is never replaced
	Extend  int64 // the file grows by
}

// OpenOn is Open on a Disk, without a lock: the caller sees to it that no journal is open twice.
func OpenOn(d Disk, opts Options, sizes DiskSizes) (*Service, error) {
	opts.segmentMin, opts.extendBy = sizes.Segment, sizes.Extend
	a := adapted{d}
	if h, ok := d.(interface{ HadJournal() bool }); ok {
		return open(markedDisk{a, h}, opts)
	}
	return open(a, opts)
}

type adapted struct{ Disk }

func (a adapted) Open(name string) (file, error)   { return asFile(a.Disk.Open(name)) }
func (a adapted) Create(name string) (file, error) { return asFile(a.Disk.Create(name)) }

// asFile keeps a nil File from becoming a file that is not nil.
func asFile(f File, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

type markedDisk struct {
	adapted
	mark interface{ HadJournal() bool }
}

func (m markedDisk) hadJournal() bool { return m.mark.HadJournal() }
