"""What people read: tables and static pages."""
