"""A drawn world: its pictures, a subject it does not know, the U-Net that was taught it, and a judge of what pictures show."""
